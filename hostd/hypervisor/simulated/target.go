package simulated

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// CreateOverlay makes an image, and a file of the path that stands for it and holds nothing of use.
func (h *Hypervisor) CreateOverlay(ctx context.Context, path string, sizeBytes int64) error {
	leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("create overlay: %w", err)
	}
	_, err = file.WriteString("simulated overlay\n")
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("create overlay: %w", err)
	}
	h.images[path] = newImage(sizeBytes)
	h.images[path].lacks = true
	return nil
}

// PullStart ends a disk's need of its backing file at once, for the definition too, as libvirt does. What it has pulled is in the
// memory of the server's process until that is suspended or ends in order.
func (h *Hypervisor) PullStart(ctx context.Context, name, target string) error {
	return h.onRunningDisk(ctx, name, target, func(s *server, d *disk) error {
		if !d.backed() {
			return fmt.Errorf("disk %q has no backing file: %w", target, hypervisor.ErrNotFound)
		}
		d.given.BackingStore = nil
		d.image.pulled = true
		if defined := s.definedDisk(target); defined != nil {
			defined.BackingStore = nil
		}
		return nil
	})
}

// PullStatus is always hypervisor.ErrNotFound: no pull takes any time.
func (h *Hypervisor) PullStatus(ctx context.Context, name, target string) (hypervisor.BlockJob, error) {
	return hypervisor.BlockJob{}, h.onRunningDisk(ctx, name, target, func(*server, *disk) error {
		return fmt.Errorf("disk %q has no pull: %w", target, hypervisor.ErrNotFound)
	})
}

// Backed tells whether the disk still has a backing file.
func (h *Hypervisor) Backed(ctx context.Context, name, target string) (backed bool, err error) {
	err = h.onRunningDisk(ctx, name, target, func(_ *server, d *disk) error {
		backed = d.backed()
		return nil
	})
	return backed, err
}

// SetRunTag puts a word on the run of a server.
func (h *Hypervisor) SetRunTag(ctx context.Context, name, tag string) error {
	return h.onRunning(ctx, name, func(s *server) error {
		s.runTag = tag
		return nil
	})
}

// RunTag is that word, or "".
func (h *Hypervisor) RunTag(ctx context.Context, name string) (tag string, err error) {
	err = h.onRunning(ctx, name, func(s *server) error {
		tag = s.runTag
		return nil
	})
	return tag, err
}

// Suspend stops the guest, and has everything written out unless it was stopped already.
func (h *Hypervisor) Suspend(ctx context.Context, name string) error {
	return h.onRunning(ctx, name, func(s *server) error {
		if s.power == hypervisor.PowerRunning {
			s.writeOut()
		}
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
