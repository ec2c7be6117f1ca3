package replicate

import (
	"sync"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
)

// desired is the newest assignment of a pair. Changes that only touch the policy take effect while work goes on; others end it.
type desired struct {
	mu         sync.Mutex
	assignment *umbrav1.Assignment
	other      chan struct{} // closed when the work has to be another
	newer      chan struct{} // closed when there is a newer assignment of any kind
}

func newDesired(a *umbrav1.Assignment) *desired {
	return &desired{assignment: a, other: make(chan struct{}), newer: make(chan struct{})}
}

// set takes a newer assignment. One of a lower generation of the same pair is ignored. It returns whether it was taken, and whether work goes on under it.
func (d *desired) set(a *umbrav1.Assignment) (taken, goesOn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if older(a, d.assignment) {
		return false, true
	}
	goesOn = sameWork(d.assignment, a)
	d.assignment = a
	close(d.newer)
	d.newer = make(chan struct{})
	if !goesOn {
		close(d.other)
		d.other = make(chan struct{})
	}
	return true, goesOn
}

// older tells whether a is an older assignment of the pair that b is of. Generations of two pairs, one after the other under one id, say nothing
// about each other.
func older(a, b *umbrav1.Assignment) bool {
	return a.GetGeneration() < b.GetGeneration() && !journal.OtherPair(b.GetDrPairUid(), a.GetDrPairUid())
}

// current is the newest assignment.
func (d *desired) current() *umbrav1.Assignment {
	a, _ := d.take()
	return a
}

// take returns the newest assignment, and a channel that is closed when other work is assigned.
func (d *desired) take() (*umbrav1.Assignment, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.assignment, d.other
}

// watch returns the newest assignment, and a channel that is closed when there is a newer one.
func (d *desired) watch() (*umbrav1.Assignment, <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.assignment, d.newer
}

// sameWork tells whether what runs for a can go on for b.
func sameWork(a, b *umbrav1.Assignment) bool {
	x, y := a.GetMain(), b.GetMain()
	return a.GetDrPairUid() == b.GetDrPairUid() && a.GetEpoch() == b.GetEpoch() && x.GetMode() == y.GetMode() && x.GetServer() == y.GetServer() &&
		x.GetServerUuid() == y.GetServerUuid() && x.GetShadowHost() == y.GetShadowHost() &&
		x.GetShadowDataAddress() == y.GetShadowDataAddress() && x.GetResyncGeneration() == y.GetResyncGeneration()
}
