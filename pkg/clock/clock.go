// Package clock is the only place of the product that reads the time or waits for it. What needs time takes a
// Clock, or a now value, so that tests decide what time it is (with testing/synctest the system clock is fake
// already, and System serves there too).
package clock

import (
	"context"
	"time"
)

// Clock tells the time and waits. Implementations are safe for concurrent use.
type Clock interface {
	// Now is the present time.
	Now() time.Time
	// Wait returns nil after d, or the context's error before that. A d of 0 or less returns at once.
	Wait(ctx context.Context, d time.Duration) error
	// NewTicker delivers the time on its channel every d, which must be positive. Stop it to free it.
	NewTicker(d time.Duration) *time.Ticker
}

// System is the clock of the operating system.
var System Clock = system{}

type system struct{}

func (system) Now() time.Time { return time.Now() }

func (system) Wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (system) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }
