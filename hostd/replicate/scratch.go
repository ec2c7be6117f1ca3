package replicate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	// jobBeat is how often a running job is looked at.
	jobBeat = time.Second
	// stallMax is how long nothing may move in a job.
	stallMax = 5 * time.Minute
)

// allocatedBytes is what the files take on their file system. A file that is not there takes nothing.
func allocatedBytes(paths []string) (int64, error) {
	var sum int64
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return sum, err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		}
	}
	return sum, nil
}

// jobWatch looks after a running job: how much scratch space it takes, and whether it moves at all.
type jobWatch struct {
	clock     clock.Clock
	scratch   []string
	progress  *progress
	allocated atomic.Int64
}

// run watches until ctx ends. It calls fail when the job stands still or cannot be watched.
func (w *jobWatch) run(ctx context.Context, fail context.CancelCauseFunc) {
	ticker := w.clock.NewTicker(jobBeat)
	defer ticker.Stop()
	moved, movedAt := int64(0), w.clock.Now()
	for {
		bytes, err := allocatedBytes(w.scratch)
		if err != nil {
			fail(err)
			return
		}
		w.allocated.Store(bytes)
		now := w.clock.Now()
		if m := w.progress.moved.Load(); m != moved {
			moved, movedAt = m, now
		}
		if now.Sub(movedAt) > stallMax {
			fail(errStalled)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
