package shadowserver

import (
	"context"
	"fmt"
	"iter"

	"libvirt.org/go/libvirtxml"
)

// chains says what each disk, by its path, is to have below it. An empty backing store ends the chain: the disk stands alone.
type chains map[string]*libvirtxml.DomainDiskBackingStore

// chainsOf are those of a definition. Disks that stand alone in it are left out.
func chainsOf(xml string) (chains, error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(xml); err != nil {
		return nil, fmt.Errorf("reading the server's definition: %w", err)
	}
	found := chains{}
	for path, d := range disksOnFiles(&dom) {
		if hasBacking(d.BackingStore) {
			found[path] = d.BackingStore
		}
	}
	return found, nil
}

// disksOnFiles are the disks of a definition that are files, by their paths.
func disksOnFiles(dom *libvirtxml.Domain) iter.Seq2[string, *libvirtxml.DomainDisk] {
	return func(yield func(string, *libvirtxml.DomainDisk) bool) {
		if dom.Devices == nil {
			return
		}
		for i := range dom.Devices.Disks {
			d := &dom.Devices.Disks[i]
			if d.Source != nil && d.Source.File != nil && !yield(d.Source.File.File, d) {
				return
			}
		}
	}
}

// whole are the chains themselves.
func (c chains) whole() chains { return c }

// alone are chains of the same disks that end there.
func (c chains) alone() chains {
	ended := chains{}
	for path := range c {
		ended[path] = &libvirtxml.DomainDiskBackingStore{}
	}
	return ended
}

// put changes a definition, whatever else its user has changed in it, so that it has these chains. It tells whether there was
// anything to change.
func (c chains) put(xml string) (out string, changed bool, err error) {
	var dom libvirtxml.Domain
	if err := dom.Unmarshal(xml); err != nil {
		return "", false, fmt.Errorf("reading the server's definition: %w", err)
	}
	for path, d := range disksOnFiles(&dom) {
		if wanted := c[path]; wanted != nil && hasBacking(wanted) != hasBacking(d.BackingStore) {
			d.BackingStore, changed = wanted, true
		}
	}
	if !changed {
		return xml, false, nil
	}
	out, err = dom.Marshal()
	if err != nil {
		return "", false, fmt.Errorf("encoding the server's definition: %w", err)
	}
	return out, true, nil
}

// defineChains puts the chains that the current attempt was defined with into the server's definition, whole or ended, and looks
// whether that holds: libvirt changes it too when a pull ends. A server that runs keeps what it has.
func (w *worker) defineChains(ctx context.Context, which func(chains) chains) error {
	made, err := chainsOf(w.rec.attempt(w.rec.Current).XML)
	if err != nil {
		return err
	}
	for range 2 {
		var xml string
		err := w.call(ctx, "reading the server's definition", func(ctx context.Context) (err error) {
			xml, err = w.cfg.Target.ServerXML(ctx, w.rec.Server)
			return err
		})
		if err != nil {
			return err
		}
		next, changed, err := which(made).put(xml)
		if err != nil || !changed {
			return err
		}
		if err := w.defineXML(ctx, w.rec.Server, next); err != nil {
			return err
		}
	}
	return fmt.Errorf("the definition of server %s does not keep what its disks stand on", w.rec.Server)
}
