package replica

import "context"

// gate is a mutex whose wait a context can end.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

// lock returns nil with the gate held, or the context's cause without it.
func (g gate) lock(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
	}
	select {
	case g <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// await holds the gate when it returns. For the few who must get it: what holds it does so for one write or commit.
func (g gate) await() { g <- struct{}{} }

func (g gate) unlock() { <-g }
