package simulated

import (
	"context"
	"fmt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// AddImage makes an empty image that definitions can name by its path.
func (h *Hypervisor) AddImage(path string, sizeBytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.images[path] = newImage(sizeBytes)
}

// GuestWrites writes to a disk as the running server's guest would.
func (h *Hypervisor) GuestWrites(ctx context.Context, name, target string, p []byte, offset int64) error {
	return h.on(ctx, name, func(s *server) error {
		if s.power != hypervisor.PowerRunning {
			return fmt.Errorf("server %q: %w", name, hypervisor.ErrNotRunning)
		}
		d, err := s.disk(target)
		if err != nil {
			return err
		}
		if offset < 0 || offset+int64(len(p)) > d.image.sizeBytes {
			return fmt.Errorf("write of %d bytes at %d is beyond the disk", len(p), offset)
		}
		s.mark(target, d.image.write(p, offset))
		return nil
	})
}

// Crash ends a server as kill -9 of its process would: its bitmaps are broken, its jobs are gone.
func (h *Hypervisor) Crash(ctx context.Context, name string) error {
	return h.on(ctx, name, func(s *server) error {
		if !s.active() {
			return nil
		}
		s.end()
		for _, c := range s.checkpoints {
			c.broken = true
		}
		return nil
	})
}

// NotAlone names the disks of a server whose images would not do without their backing files, or that it has run on without them.
func (h *Hypervisor) NotAlone(ctx context.Context, name string) (targets []string, err error) {
	err = h.on(ctx, name, func(s *server) error {
		for _, d := range s.disks {
			if d.image.lacks || d.image.strayed {
				targets = append(targets, d.Target)
			}
		}
		return nil
	})
	return targets, err
}

// BeginForeignBackup begins a job of another tool's, with a checkpoint of all disks that track changes.
func (h *Hypervisor) BeginForeignBackup(ctx context.Context, name, checkpointName string) error {
	return h.on(ctx, name, func(s *server) error {
		if s.job != nil {
			return fmt.Errorf("server %q: %w", name, hypervisor.ErrBackupBusy)
		}
		s.job = &job{foreign: true}
		made := &checkpoint{name: checkpointName, dirty: map[string]bitmap{}}
		for _, d := range s.disks {
			if d.TracksChanges {
				made.dirty[d.Target] = bitmap{}
			}
		}
		s.checkpoints = append(s.checkpoints, made)
		return nil
	})
}

// EndForeignBackup ends it.
func (h *Hypervisor) EndForeignBackup(ctx context.Context, name string) error {
	return h.on(ctx, name, func(s *server) error {
		if s.job != nil && s.job.foreign {
			s.endJob()
		}
		return nil
	})
}

// CheckpointNames are the names of all checkpoints, foreign ones too, oldest first.
func (h *Hypervisor) CheckpointNames(ctx context.Context, name string) (names []string, err error) {
	err = h.on(ctx, name, func(s *server) error {
		for _, c := range s.checkpoints {
			names = append(names, c.name)
		}
		return nil
	})
	return names, err
}
