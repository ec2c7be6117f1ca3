package simulated

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// CreateImage makes an image, and a file of the path that stands for it and holds nothing of use.
func (h *Hypervisor) CreateImage(ctx context.Context, path string, sizeBytes int64) error {
	leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	_, err = file.WriteString("simulated image\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	h.images[path] = newImage(sizeBytes)
	h.images[path].lacks = true
	return nil
}

// CopyStart begins a copy of a disk, which is complete when it is looked at.
func (h *Hypervisor) CopyStart(ctx context.Context, name, target, path string) error {
	return h.onRunningDisk(ctx, name, target, func(_ *server, d *disk) error {
		if d.copyPath != "" {
			return nil
		}
		if h.images[path] == nil {
			return fmt.Errorf("copy disk %q: there is no image %q", target, path)
		}
		d.copyPath = path
		return nil
	})
}

// CopyStatus is that of a copy that is complete, or hypervisor.ErrNotFound.
func (h *Hypervisor) CopyStatus(ctx context.Context, name, target string) (job hypervisor.DiskCopy, err error) {
	err = h.onRunningDisk(ctx, name, target, func(_ *server, d *disk) error {
		if d.copyPath == "" {
			return noCopy(target)
		}
		job = hypervisor.DiskCopy{Path: d.copyPath, DoneBytes: d.SizeBytes, TotalBytes: d.SizeBytes, Complete: true}
		return nil
	})
	return job, err
}

// CopyLimit changes nothing: no copy takes any time.
func (h *Hypervisor) CopyLimit(ctx context.Context, name, target string, _ int64) error {
	_, err := h.CopyStatus(ctx, name, target)
	return err
}

// CopyCancel forgets the copy.
func (h *Hypervisor) CopyCancel(ctx context.Context, name, target string) error {
	return h.onRunningDisk(ctx, name, target, func(_ *server, d *disk) error {
		d.copyPath = ""
		return nil
	})
}

// CopySwitch puts the copy in the disk's place, for the definition too.
func (h *Hypervisor) CopySwitch(ctx context.Context, name, target string) error {
	return h.onRunningDisk(ctx, name, target, func(s *server, d *disk) error {
		if d.copyPath == "" {
			return noCopy(target)
		}
		to := h.images[d.copyPath]
		to.clusters, to.lacks = d.image.view().clusters, d.image.lacks && !d.backed()
		if defined := s.definedDisk(target); defined != nil {
			defined.Source.File.File, defined.BackingStore = d.copyPath, nil
		}
		d.image, d.path, d.Source, d.copyPath = to, d.copyPath, d.copyPath, ""
		d.given.BackingStore = nil
		return nil
	})
}

func noCopy(target string) error {
	return fmt.Errorf("disk %q is not being copied: %w", target, hypervisor.ErrNotFound)
}

// Suspend stops the guest.
func (h *Hypervisor) Suspend(ctx context.Context, name string) error {
	return h.onRunning(ctx, name, func(s *server) error {
		s.power = hypervisor.PowerPaused
		return nil
	})
}

// Resume lets the guest go on.
func (h *Hypervisor) Resume(ctx context.Context, name string) error {
	return h.onRunning(ctx, name, func(s *server) error {
		s.power = hypervisor.PowerRunning
		return nil
	})
}

func (h *Hypervisor) onRunning(ctx context.Context, name string, fn func(*server) error) error {
	return h.on(ctx, name, func(s *server) error {
		if !s.active() {
			return fmt.Errorf("server %q: %w", name, hypervisor.ErrNotRunning)
		}
		return fn(s)
	})
}

func (h *Hypervisor) onRunningDisk(ctx context.Context, name, target string, fn func(*server, *disk) error) error {
	return h.onRunning(ctx, name, func(s *server) error {
		d, err := s.disk(target)
		if err != nil {
			return err
		}
		return fn(s, d)
	})
}

func (d *disk) backed() bool {
	return d.given.BackingStore != nil && d.given.BackingStore.Format != nil
}
