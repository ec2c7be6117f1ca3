package replicate

import (
	"context"
	"time"

	"github.com/umbra-dr/umbra/pkg/clock"
)

// fastClock is a clock on which everything takes a fraction of its time.
type fastClock struct {
	begin time.Time
	speed int64
}

// fast makes one that is fast enough for tests and slow enough for QEMU's tools to keep up.
func fast() fastClock { return fastClock{time.Now(), 20} }

func (c fastClock) Now() time.Time { return c.begin.Add(time.Since(c.begin) * time.Duration(c.speed)) }

func (c fastClock) Wait(ctx context.Context, d time.Duration) error {
	return clock.System.Wait(ctx, d/time.Duration(c.speed))
}

func (c fastClock) NewTicker(d time.Duration) *time.Ticker {
	return time.NewTicker(d / time.Duration(c.speed))
}
