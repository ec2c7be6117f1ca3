package simulated

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const ownPrefix = "umbra-"

// checkpoint records what is written from it to the next one.
type checkpoint struct {
	name   string
	dirty  map[string]bitmap // by target, for disks that it tracks
	broken bool
}

// mark records a write of the guest's.
func (s *server) mark(target string, clusters []int64) {
	// Only the newest bitmap of a disk records; the older ones end where it begins.
	for i := len(s.checkpoints) - 1; i >= 0; i-- {
		if dirty, ok := s.checkpoints[i].dirty[target]; ok {
			for _, number := range clusters {
				dirty[number] = true
			}
			return
		}
	}
}

// changes is what was written to a disk since a checkpoint, or nil when that checkpoint does not track the disk.
func (s *server) changes(since, target string) (bitmap, error) {
	first := s.position(since)
	if first < 0 {
		return nil, fmt.Errorf("checkpoint %q: %w", since, hypervisor.ErrCheckpointLost)
	}
	if s.checkpoints[first].broken {
		return nil, fmt.Errorf("checkpoint %q has a broken bitmap: %w", since, hypervisor.ErrCheckpointLost)
	}
	if _, ok := s.checkpoints[first].dirty[target]; !ok {
		return nil, nil
	}
	all := bitmap{}
	for _, c := range s.checkpoints[first:] {
		all.add(c.dirty[target])
	}
	return all, nil
}

func (s *server) position(name string) int {
	return slices.IndexFunc(s.checkpoints, func(c *checkpoint) bool { return c.name == name })
}

// Checkpoints lists Umbra's checkpoints, oldest first.
func (h *Hypervisor) Checkpoints(ctx context.Context, name string) (names []string, err error) {
	err = h.on(ctx, name, func(s *server) error {
		for _, c := range s.checkpoints {
			if strings.HasPrefix(c.name, ownPrefix) {
				names = append(names, c.name)
			}
		}
		return nil
	})
	return names, err
}

// DeleteCheckpoint deletes one of Umbra's; what it knows goes to the one before it.
func (h *Hypervisor) DeleteCheckpoint(ctx context.Context, name, checkpoint string) error {
	if !strings.HasPrefix(checkpoint, ownPrefix) {
		return fmt.Errorf("checkpoint %q is not one of Umbra's", checkpoint)
	}
	return ignoreMissing(h.on(ctx, name, func(s *server) error {
		i := s.position(checkpoint)
		if i < 0 {
			return nil
		}
		deleted := s.checkpoints[i]
		s.checkpoints = slices.Delete(s.checkpoints, i, i+1)
		for target, dirty := range deleted.dirty {
			for before := i - 1; before >= 0; before-- {
				if known, ok := s.checkpoints[before].dirty[target]; ok {
					known.add(dirty)
					break
				}
			}
		}
		return nil
	}))
}
