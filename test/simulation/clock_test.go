package simulation_test

import (
	"context"
	"sync/atomic"
	"time"
)

// pace is how much faster than ours the time of a world goes.
const pace = 40

// fastClock is a clock of one machine: it goes at the world's pace and can be set. Waits do not notice that it was set, as those
// of a real machine do not.
type fastClock struct {
	began time.Time
	set   *atomic.Int64 // by how much somebody has set it
}

func newClock(began time.Time) fastClock { return fastClock{began: began, set: &atomic.Int64{}} }

func (c fastClock) Now() time.Time {
	return c.began.Add(time.Since(c.began)*pace + time.Duration(c.set.Load())).Round(0)
}

func (c fastClock) Wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d / pace)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c fastClock) NewTicker(d time.Duration) *time.Ticker {
	return time.NewTicker(max(d/pace, time.Millisecond))
}

func (c fastClock) jump(by time.Duration) { c.set.Add(int64(by)) }
