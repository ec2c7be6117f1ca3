package session

import (
	"maps"
	"slices"
	"sync"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Outbox holds the latest report of each pair and role until it has been sent. Roles put reports in from any
// goroutine and never wait.
type Outbox struct {
	mu     sync.Mutex
	latest map[reportKey]*umbrav1.AssignmentReport
	unsent map[reportKey]struct{}
	wake   chan struct{}
}

type reportKey struct {
	pair string
	main bool
}

// NewOutbox is empty.
func NewOutbox() *Outbox {
	return &Outbox{
		latest: map[reportKey]*umbrav1.AssignmentReport{}, unsent: map[reportKey]struct{}{}, wake: make(chan struct{}, 1),
	}
}

// Report puts a report in, in place of an earlier one of the same pair and role. It is the caller's no more.
func (o *Outbox) Report(report *umbrav1.AssignmentReport) {
	key := reportKey{pair: report.GetDrPair(), main: report.GetMain() != nil}
	o.mu.Lock()
	o.latest[key] = report
	o.unsent[key] = struct{}{}
	o.mu.Unlock()
	o.signal()
}

// resendAll makes everything unsent again: a new session starts from nothing.
func (o *Outbox) resendAll() {
	o.mu.Lock()
	for key := range o.latest {
		o.unsent[key] = struct{}{}
	}
	o.mu.Unlock()
	o.signal()
}

// keep forgets the reports of pairs that are no longer assigned in that role.
func (o *Outbox) keep(mains, shadows []*umbrav1.Assignment) {
	assigned := map[reportKey]bool{}
	for _, a := range mains {
		assigned[reportKey{pair: a.GetDrPair(), main: true}] = true
	}
	for _, a := range shadows {
		assigned[reportKey{pair: a.GetDrPair()}] = true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for key := range o.latest {
		if !assigned[key] {
			delete(o.latest, key)
			delete(o.unsent, key)
		}
	}
}

func (o *Outbox) take(most int) []*umbrav1.AssignmentReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	keys := slices.Collect(maps.Keys(o.unsent))
	keys = keys[:min(most, len(keys))]
	batch := make([]*umbrav1.AssignmentReport, len(keys))
	for i, key := range keys {
		batch[i] = o.latest[key]
		delete(o.unsent, key)
	}
	return batch
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
