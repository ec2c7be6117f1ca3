package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"time"
)

// side is one of those that are compared.
type side struct {
	name string
	// ready makes ready for a measurement what leaves the page cache as it should not be. Nil: nothing.
	ready func(ctx context.Context) error
	// once does the work and returns its figure. What must be made ready or cleared away for it is not in the figure.
	once func(ctx context.Context) (float64, error)
}

// samples are a side's figures, in the order in which they were measured.
type samples map[string][]float64

const ourSide = "umbra"

// bestPeer is the side with the least figure of those that are not ours.
func (s samples) bestPeer() (best string) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if name != ourSide && (best == "" || quantile(s[name], 0.5) < quantile(s[best], 0.5)) {
			best = name
		}
	}
	return best
}

// alternate measures the sides in turn, and again, so that whatever drifts in the machine meets all of them alike. Before each
// measurement nothing is left to write and the page cache is empty.
func (b *bench) alternate(ctx context.Context, sides ...side) (samples, error) {
	got := samples{}
	for i := range b.times {
		for _, s := range sides {
			if s.ready != nil {
				if err := s.ready(ctx); err != nil {
					return nil, fmt.Errorf("make %s ready: %w", s.name, err)
				}
			}
			if err := settle(ctx); err != nil {
				return nil, err
			}
			figure, err := s.once(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			b.note("%d/%d %-42s %.4g", i+1, b.times, s.name, figure)
			got[s.name] = append(got[s.name], figure)
		}
	}
	return got, nil
}

// settleTime is how long the machine rests: file systems discard removed blocks after the fact.
const settleTime = time.Second

// settle brings the page cache to the same state for everybody: nothing dirty, nothing cached.
func settle(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "sync").CombinedOutput(); err != nil {
		return fmt.Errorf("sync: %w: %s", err, out)
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settleTime):
	}
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("empty the page cache: %w", err)
	}
	return nil
}

// timed returns the seconds that work takes.
func timed(work func() error) (float64, error) {
	began := time.Now()
	err := work()
	return time.Since(began).Seconds(), err
}
