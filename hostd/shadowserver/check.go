package shadowserver

import (
	"context"
	"errors"
	"slices"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// checkHost says why this host could not run a server of that definition. It changes nothing.
func (w *worker) checkHost(ctx context.Context, def definition) error {
	var host hypervisor.Host
	err := w.call(ctx, "asking what the host has", func(ctx context.Context) (err error) {
		host, err = w.cfg.Target.Host(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if def.Type == "kvm" && !host.KVM {
		return unportable("the server needs KVM, which this host does not offer")
	}
	if err := w.checkNetworks(def, host); err != nil {
		return err
	}
	if err := w.checkOthers(ctx, def, host); err != nil {
		return err
	}
	err = w.call(ctx, "checking the definition", func(ctx context.Context) error {
		return w.cfg.Target.CheckDefinition(ctx, def.XML)
	})
	if err == nil || errors.Is(err, hypervisor.ErrUnavailable) || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return &refusal{
		reason:  umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED,
		message: "this host cannot run the server", err: err,
	}
}

func (w *worker) checkNetworks(def definition, host hypervisor.Host) error {
	for _, name := range def.Networks {
		if !slices.Contains(host.Networks, name) {
			return refuse(umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING,
				"the shadow host has no active network %q", name)
		}
	}
	for _, name := range def.Links {
		if !w.cfg.LinkExists(name) {
			return refuse(umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING,
				"the shadow host has no bridge or network device %q", name)
		}
	}
	return nil
}

// checkOthers looks for a foreign server of the same name or UUID, and for memory. What our own server takes will
// be free by then.
func (w *worker) checkOthers(ctx context.Context, def definition, host hypervisor.Host) error {
	own, number, err := w.ownServer(ctx)
	if err != nil {
		return err
	}
	var all []hypervisor.Server
	err = w.call(ctx, "listing the servers", func(ctx context.Context) (err error) {
		all, err = w.cfg.Target.Servers(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, s := range all {
		if number != 0 && s.Name == own.Name {
			continue
		}
		if s.Name == def.Name || strings.EqualFold(s.UUID, def.UUID) {
			return refuse(umbrav1.ErrorReason_ERROR_REASON_SERVER_NAME_TAKEN,
				"the shadow host has another server %q of UUID %s, which is not the shadow of this pair", s.Name, s.UUID)
		}
	}
	free := host.MemoryFreeBytes
	if own.Power == hypervisor.PowerRunning || own.Power == hypervisor.PowerPaused {
		free += own.MemoryBytes
	}
	if def.MemoryBytes > free {
		return refuse(umbrav1.ErrorReason_ERROR_REASON_MEMORY_MISSING,
			"the server needs %d MiB of memory, and the shadow host has %d MiB free", def.MemoryBytes>>20, free>>20)
	}
	return nil
}
