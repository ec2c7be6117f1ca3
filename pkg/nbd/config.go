package nbd

import "fmt"

// Config says where an export is and what is wanted from it.
type Config struct {
	// Network and Address are those of net.Dial: "unix" and a path, "tcp" and host:port.
	Network, Address string
	// Export is the export's name. Empty is the server's default export.
	Export string
	// MetaContexts are the metadata contexts to ask for, such as "base:allocation" or
	// "qemu:dirty-bitmap:backup-vda". A server may refuse any of them: see Client.HasContext.
	MetaContexts []string
	// InFlightMax bounds the requests in flight. 0 means 16, the largest allowed is 1024.
	InFlightMax int
}

func (cfg Config) validate() error {
	if cfg.InFlightMax < 0 || cfg.InFlightMax > inFlightLimit {
		return fmt.Errorf("%w: %d requests in flight, the limit is %d", ErrInvalidConfig, cfg.InFlightMax, inFlightLimit)
	}
	if len(cfg.Export) > stringBytesMax {
		return fmt.Errorf("%w: export name of %d bytes", ErrInvalidConfig, len(cfg.Export))
	}
	if len(cfg.MetaContexts) > metaContextsMax {
		return fmt.Errorf("%w: %d metadata contexts, the limit is %d", ErrInvalidConfig, len(cfg.MetaContexts), metaContextsMax)
	}
	seen := make(map[string]bool, len(cfg.MetaContexts))
	for _, name := range cfg.MetaContexts {
		if name == "" || len(name) > stringBytesMax || seen[name] {
			return fmt.Errorf("%w: metadata context %q is empty, too long or named twice", ErrInvalidConfig, name)
		}
		seen[name] = true
	}
	return nil
}

func (cfg Config) inFlightMax() int {
	if cfg.InFlightMax == 0 {
		return inFlightDefault
	}
	return cfg.InFlightMax
}
