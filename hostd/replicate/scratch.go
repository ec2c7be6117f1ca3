package replicate

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// jobBeat is how often a running job is looked at.
	jobBeat = 250 * time.Millisecond
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
	cfg       *Config
	scratch   []string
	progress  *progress
	allocated atomic.Int64
	free      atomic.Int64
}

func newJobWatch(cfg *Config, j *job, p *progress) *jobWatch {
	w := &jobWatch{cfg: cfg, scratch: j.scratch(), progress: p}
	w.free.Store(math.MaxInt64) // until the first look; there was enough when the job was begun
	return w
}

// over tells why the job has to end, if more than percent of its space is used up. QEMU fails a guest's write, and pauses the
// server for it, when the scratch file has no room for what the write overwrites
// (https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html, on-cbw-error: break-guest-write is what a backup job does).
func (w *jobWatch) over(percent int64) error {
	switch {
	case w.free.Load() < w.cfg.freeNeeded(percent):
		return errScratchSpace
	case w.allocated.Load() > w.cfg.ScratchBytesMax/100*percent:
		return errScratchLimit
	}
	return nil
}

// freeNeeded is how much must be free for a job that may use up so many percent of its space.
func (c *Config) freeNeeded(percent int64) int64 {
	return c.ScratchFreeBytesMin / 100 * (200 - percent)
}

// look measures. It tells when there was no room at the look before and there still is none: whoever should have ended the job in
// order waits for something.
func (w *jobWatch) look() error {
	before := w.over(100)
	allocated, err := allocatedBytes(w.scratch)
	if err != nil {
		return err
	}
	free, err := w.cfg.FreeBytes(w.cfg.RunDir)
	if err != nil {
		return err
	}
	w.allocated.Store(allocated)
	w.free.Store(free)
	if now := w.over(100); errors.Is(before, errScratchSpace) && errors.Is(now, errScratchSpace) {
		return now
	}
	return nil
}

// run watches until ctx ends. It calls fail when the job stands still, has no space left, or cannot be watched.
func (w *jobWatch) run(ctx context.Context, fail context.CancelCauseFunc) {
	ticker := w.cfg.Clock.NewTicker(jobBeat)
	defer ticker.Stop()
	moved, movedAt := int64(0), w.cfg.Clock.Now()
	for {
		if err := w.look(); err != nil {
			fail(err)
			return
		}
		now := w.cfg.Clock.Now()
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
