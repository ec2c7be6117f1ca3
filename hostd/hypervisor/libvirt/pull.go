package libvirt

import (
	"context"
	"fmt"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const (
	// pullEndingMax is how long a pull may take from its end at QEMU to its end at libvirt.
	pullEndingMax  = 3 * time.Second
	pullEndingPoll = 20 * time.Millisecond
)

// PullStart begins to copy all backing data of the disk into its active layer. A running pull is no error; a disk that
// is not there or has no backing file is hypervisor.ErrNotFound; a server that is off is hypervisor.ErrNotRunning.
func (h *Hypervisor) PullStart(ctx context.Context, server, disk string) error {
	backed, err := h.Backed(ctx, server, disk)
	if err != nil {
		return err
	}
	if !backed {
		return fmt.Errorf("disk %q of server %q has no backing file: %w", disk, server, hypervisor.ErrNotFound)
	}
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	what := fmt.Sprintf("begin to pull disk %q of server %q", disk, server)
	for until := h.clock.Now().Add(pullEndingMax); ; {
		failed := h.call(ctx, what, func(l *rpc.Libvirt) error { return l.DomainBlockPull(dom, disk, 0, 0) })
		if failed == nil {
			return nil
		}
		if _, err := h.PullStatus(ctx, server, disk); err == nil {
			return nil
		}
		if backed, err := h.Backed(ctx, server, disk); err == nil && !backed {
			return nil
		}
		// For a moment a pull has ended at QEMU, and libvirt has not dealt with that yet.
		if !strings.Contains(failed.Error(), "block job") || !h.clock.Now().Before(until) {
			return failed
		}
		if err := h.clock.Wait(ctx, pullEndingPoll); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// PullStatus tells how far the pull of a disk is, or hypervisor.ErrNotFound when none is running. Done and total are
// QEMU's own measure of its work and both may be 0 at the very beginning. Whether a pull that is not running any more has
// done its work is what Backed tells, at most a moment later.
func (h *Hypervisor) PullStatus(ctx context.Context, server, disk string) (hypervisor.BlockJob, error) {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return hypervisor.BlockJob{}, err
	}
	var job hypervisor.BlockJob
	var pulling bool
	what := fmt.Sprintf("get the pull of disk %q of server %q", disk, server)
	err = h.call(ctx, what, func(l *rpc.Libvirt) error {
		found, kind, _, done, total, err := l.DomainGetBlockJobInfo(dom, disk, 0)
		pulling = found != 0 && rpc.DomainBlockJobType(kind) == rpc.DomainBlockJobTypePull
		job = hypervisor.BlockJob{DoneBytes: int64(done), TotalBytes: int64(total)}
		return err
	})
	switch {
	case err != nil:
		return hypervisor.BlockJob{}, h.orNotRunning(ctx, dom, err)
	case !pulling:
		return hypervisor.BlockJob{}, fmt.Errorf("no pull runs on disk %q of server %q: %w", disk, server, hypervisor.ErrNotFound)
	}
	return job, nil
}

// Backed tells whether the disk of the running server still has a backing file.
func (h *Hypervisor) Backed(ctx context.Context, server, disk string) (bool, error) {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return false, err
	}
	if err := h.running(ctx, dom); err != nil {
		return false, err
	}
	definition, err := h.definition(ctx, dom, 0)
	if err != nil {
		return false, err
	}
	for _, candidate := range storage(definition) {
		if candidate.Target.Dev == disk {
			return hasBacking(candidate), nil
		}
	}
	return false, fmt.Errorf("server %q has no disk %q: %w", server, disk, hypervisor.ErrNotFound)
}

// hasBacking: in the XML of a running server every backing file has a format, and an empty backingStore element ends the
// chain.
func hasBacking(disk *libvirtxml.DomainDisk) bool {
	return disk.BackingStore != nil && disk.BackingStore.Format != nil
}
