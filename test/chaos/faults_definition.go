package chaos

import (
	"context"
	"fmt"
	"os"
)

// definitionFaults change what the main server is.
var definitionFaults = []Fault{
	{
		Name: "add-disk", Does: "its user plugs a disk into the running main server; gone with its next power cycle, which comes later", Hits: "main server", Weight: 1,
		Operator: "The disk is part of every point from then on, and of none after it is gone; RESYNCING in between.",
		Inject:   addDisk,
	},
	{
		Name: "grow-disk", Does: "its user makes a disk of the running main server larger", Hits: "main server", Weight: 1,
		Operator: "RESYNCING of that disk; later points have its new size, earlier ones the old.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			if !w.serverRuns(ctx, w.Main) {
				return nil, errNothingToHit
			}
			w.grown++
			size := guestSpec().DiskBytes[1] + w.grown<<20
			if _, err := w.Main.Virsh(ctx, "blockresize", guest, "vdb", fmt.Sprintf("%dB", size)); err != nil {
				w.note("  libvirt refuses: %v", err)
				return nil, errNothingToHit
			}
			return nothing, nil
		},
	},
	{
		Name: "rename-main-server", Does: "its user takes its power and renames it, and names it back and starts it later", Hits: "main server", Weight: 1,
		Operator: "REPLICATION_ERROR with SERVER_MISSING; then RESYNCING.",
		Inject:   renameServer,
	},
	{
		Name: "migrate-main-server", Does: "the main server leaves its host as by a migration: off, without definition and checkpoints; back later", Hits: "main server", Weight: 1,
		Operator: "REPLICATION_ERROR with SERVER_MISSING; then RESYNCING.",
		Inject:   migrateServer,
	},
}

func addDisk(ctx context.Context, w *world) (func(context.Context) error, error) {
	if !w.serverRuns(ctx, w.Main) {
		return nil, errNothingToHit
	}
	image := "/var/lib/libvirt/images/" + guest + "-added.qcow2"
	for _, command := range [][]string{
		{"qemu-img", "create", "-q", "-f", "qcow2", image, "8M"},
		{"virsh", "-q", "attach-disk", guest, image, "vdc", "--targetbus", "virtio", "--driver", "qemu", "--subdriver", "qcow2", "--live"},
	} {
		if out, err := w.Main.Command(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			w.note("  the disk cannot be added: %v: %s", err, out)
			return nil, errNothingToHit
		}
	}
	powerCycle := func(ctx context.Context) error {
		if _, err := w.Main.Virsh(ctx, "destroy", guest); err != nil && w.serverRuns(ctx, w.Main) {
			return err // otherwise a fence was faster
		}
		return nil // the cycle starts what must run
	}
	return powerCycle, nil
}

func renameServer(ctx context.Context, w *world) (func(context.Context) error, error) {
	if !w.act.mainRuns {
		return nil, errNothingToHit // a name that nobody finds is not what a failover or a deletion is about
	}
	if _, err := w.Main.Virsh(ctx, "destroy", guest); err != nil {
		return nil, errNothingToHit
	}
	if _, err := w.Main.Virsh(ctx, "domrename", guest, renamed); err != nil {
		w.note("  libvirt refuses: %v", err)
		return nil, errNothingToHit
	}
	back := func(ctx context.Context) error {
		_, err := w.Main.Virsh(ctx, "domrename", renamed, guest)
		return err
	}
	return back, nil
}

// migrateServer leaves the host as virsh migrate --undefinesource does, and brings the server back. Its disks are shared storage, so
// they stay.
func migrateServer(ctx context.Context, w *world) (func(context.Context) error, error) {
	if !w.act.mainRuns {
		return nil, errNothingToHit // as with another name
	}
	xml, err := w.Main.Virsh(ctx, "dumpxml", "--inactive", guest)
	if err != nil {
		return nil, errNothingToHit
	}
	kept := w.Main.Path("/var/lib/libvirt/images/" + guest + "-migrated.xml")
	if err := os.WriteFile(kept, []byte(xml), 0o600); err != nil {
		return nil, fmt.Errorf("keeping the definition: %w", err)
	}
	if _, err := w.Main.Virsh(ctx, "destroy", guest); err != nil {
		return nil, errNothingToHit
	}
	if _, err := w.Main.Virsh(ctx, "undefine", guest, "--checkpoints-metadata"); err != nil {
		w.note("  libvirt refuses: %v", err)
		return nil, errNothingToHit
	}
	back := func(ctx context.Context) error {
		_, err := w.Main.Virsh(ctx, "define", "/var/lib/libvirt/images/"+guest+"-migrated.xml")
		return err
	}
	return back, nil
}

// renamed is another name for the main server.
const renamed = guest + "-renamed"
