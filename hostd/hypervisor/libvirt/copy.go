package libvirt

import (
	"context"
	"errors"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// QEMU copies pieces of up to copyGranularity, as many at once as copyBuffer holds. With its own 64 KiB and 16 MiB a copy of 4 GiB
// from a disk to the same took 7.4 to 8.2 s, with these 6.2 to 6.8 (docs/performance.md).
const (
	copyGranularity = 1 << 20
	copyBuffer      = 64 << 20
)

// CopyStart begins to copy a disk of a running server, with all that lies below its image, into the qcow2 image at path, which must
// be empty. The guest's writes go to both from then on and wait for both, so that the copy ends however much the guest writes
// (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainBlockCopy). A copy that runs is no error; a disk that is not
// there is hypervisor.ErrNotFound; a server that is off is hypervisor.ErrNotRunning.
func (h *Hypervisor) CopyStart(ctx context.Context, server, disk, path string) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	definition, err := h.definition(ctx, dom, 0)
	if err != nil {
		return err
	}
	if diskOf(definition, disk) == nil {
		return fmt.Errorf("server %q has no disk %q: %w", server, disk, hypervisor.ErrNotFound)
	}
	destination, err := (&libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "qcow2"},
		Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: path}},
	}).Marshal()
	if err != nil {
		return fmt.Errorf("write where to copy disk %q of server %q to: %w", disk, server, err)
	}
	parameters := []rpc.TypedParam{
		{Field: rpc.DomainBlockCopyGranularity, Value: *rpc.NewTypedParamValueUint(copyGranularity)},
		{Field: rpc.DomainBlockCopyBufSize, Value: *rpc.NewTypedParamValueUllong(copyBuffer)},
	}
	// A job on a server that is defined must be called transient: libvirt would not begin it again after a restart of the server.
	flags := rpc.DomainBlockCopyReuseExt | rpc.DomainBlockCopyTransientJob | rpc.DomainBlockCopySynchronousWrites
	failed := h.call(ctx, fmt.Sprintf("begin to copy disk %q of server %q", disk, server), func(l *rpc.Libvirt) error {
		return l.DomainBlockCopy(dom, disk, destination, parameters, flags)
	})
	if failed == nil {
		return nil
	}
	if _, err := h.CopyStatus(ctx, server, disk); err == nil {
		return nil
	}
	return h.orNotRunning(ctx, dom, failed)
}

// CopyStatus tells how far the copy of a disk is, or hypervisor.ErrNotFound when none is running. Done and total are QEMU's own
// measure of its work and both may be 0 at the very beginning.
func (h *Hypervisor) CopyStatus(ctx context.Context, server, disk string) (hypervisor.DiskCopy, error) {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return hypervisor.DiskCopy{}, err
	}
	var job hypervisor.DiskCopy
	var copying bool
	what := fmt.Sprintf("get the copy of disk %q of server %q", disk, server)
	err = h.call(ctx, what, func(l *rpc.Libvirt) error {
		found, kind, _, done, total, err := l.DomainGetBlockJobInfo(dom, disk, 0)
		copying = found != 0 && rpc.DomainBlockJobType(kind) == rpc.DomainBlockJobTypeCopy
		job.DoneBytes, job.TotalBytes = int64(done), int64(total)
		return err
	})
	if err != nil {
		return hypervisor.DiskCopy{}, h.orNotRunning(ctx, dom, err)
	}
	none := fmt.Errorf("no copy runs of disk %q of server %q: %w", disk, server, hypervisor.ErrNotFound)
	if !copying {
		return hypervisor.DiskCopy{}, none
	}
	// After that question, which waits for what is being done to the server: the definition has what it has come to.
	definition, err := h.definition(ctx, dom, 0)
	if err != nil {
		return hypervisor.DiskCopy{}, err
	}
	source := diskOf(definition, disk)
	if source == nil || source.Mirror == nil {
		return hypervisor.DiskCopy{}, none
	}
	// ready is "yes" once the copy holds all that the disk holds (https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms, mirror).
	mirror := source.Mirror
	_, job.Path = sourceOf(mirror.Source)
	job.Complete = mirror.Ready == "yes"
	job.Switching = mirror.Ready == "pivot" || mirror.Ready == "abort"
	return job, nil
}

// CopyLimit has a copy that runs take no more than so many bytes a second, or as many as it can (0). No copy is hypervisor.ErrNotFound.
func (h *Hypervisor) CopyLimit(ctx context.Context, server, disk string, bytesPerSecond int64) error {
	return h.onCopy(ctx, server, disk, "limit", func(l *rpc.Libvirt, dom rpc.Domain) error {
		return l.DomainBlockJobSetSpeed(dom, disk, uint64(bytesPerSecond), rpc.DomainBlockJobSpeedBandwidthBytes)
	})
}

// CopyCancel ends the copying; the server goes on with the disk. No copy is no error.
func (h *Hypervisor) CopyCancel(ctx context.Context, server, disk string) error {
	err := h.onCopy(ctx, server, disk, "end", func(l *rpc.Libvirt, dom rpc.Domain) error {
		return l.DomainBlockJobAbort(dom, disk, 0)
	})
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	return err
}

// CopySwitch has the server go on with the copy instead of the disk that was copied, in its definition too, and ends the job. QEMU
// flushes the copy before that. One that is not complete is an error, and goes on; no copy is hypervisor.ErrNotFound.
func (h *Hypervisor) CopySwitch(ctx context.Context, server, disk string) error {
	return h.onCopy(ctx, server, disk, "switch to", func(l *rpc.Libvirt, dom rpc.Domain) error {
		return l.DomainBlockJobAbort(dom, disk, rpc.DomainBlockJobAbortPivot)
	})
}

// onCopy calls do on a server while a disk of it is copied. No copy is hypervisor.ErrNotFound.
func (h *Hypervisor) onCopy(ctx context.Context, server, disk, verb string, do func(*rpc.Libvirt, rpc.Domain) error) error {
	if _, err := h.CopyStatus(ctx, server, disk); err != nil {
		return err
	}
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	failed := h.call(ctx, fmt.Sprintf("%s the copy of disk %q of server %q", verb, disk, server), func(l *rpc.Libvirt) error { return do(l, dom) })
	return h.orNotRunning(ctx, dom, failed)
}

// diskOf is a disk of a definition by its target name, or nil.
func diskOf(definition *libvirtxml.Domain, disk string) *libvirtxml.DomainDisk {
	for _, candidate := range storage(definition) {
		if candidate.Target.Dev == disk {
			return candidate
		}
	}
	return nil
}
