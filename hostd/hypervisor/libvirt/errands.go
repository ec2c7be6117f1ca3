package libvirt

import (
	"context"
	"sync"
)

// errands are what goes on after the call that began it has returned, such as a thaw that the guest does not answer.
type errands struct {
	// The life of the errands is nobody's call, so their context is kept here, and ends in close.
	life context.Context
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

func newErrands() *errands {
	e := &errands{}
	e.life, e.end = context.WithCancel(context.Background())
	return e
}

// start runs the errand, or does nothing after close.
func (e *errands) start(errand func(context.Context)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.running.Go(func() { errand(e.life) })
}

// close ends the errands and waits for them.
func (e *errands) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.end()
	e.running.Wait()
}
