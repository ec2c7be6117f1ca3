package replicate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/umbra-dr/umbra/pkg/clock"
)

// The server would be stopped by a full file system of scratch files, whatever the job waits for.
func TestAJobThatWaitsIsFailedBeforeItsScratchFilesFillTheFileSystem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free atomic.Int64
		cfg := &Config{
			Clock: clock.System, ScratchBytesMax: 1 << 30, ScratchFreeBytesMin: 100,
			FreeBytes: func(string) (int64, error) { return free.Load(), nil },
		}
		w := newJobWatch(cfg, &job{}, &progress{})
		wantOver := func(percent int64, want error) {
			t.Helper()
			if got := w.over(percent); !errors.Is(got, want) {
				t.Errorf("with %d bytes free, over(%d) is %v, want %v", free.Load(), percent, got, want)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		failed := make(chan error, 1)
		free.Store(110)
		go w.run(ctx, func(err error) { failed <- err })
		time.Sleep(time.Minute)
		wantOver(90, nil)
		free.Store(109)
		time.Sleep(time.Minute)
		wantOver(90, errScratchSpace)
		wantOver(100, nil)
		synctest.Wait()
		if len(failed) > 0 {
			t.Fatalf("failed for %v while there is room", <-failed)
		}
		free.Store(99)
		at := time.Now()
		err := <-failed
		if took := time.Since(at); !errors.Is(err, errScratchSpace) || took > 2*jobBeat {
			t.Errorf("failed for %v after %v, want %v within two looks", err, took, errScratchSpace)
		}
	})
}
