package session

import (
	"sync"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Outbox holds the latest report of each pair and role until it has been sent. Roles put reports in from any
// goroutine and never wait. It holds at most one report for each assignment.
type Outbox struct {
	mu       sync.Mutex
	assigned map[reportKey]struct{} // nil until the first set is known: then everything is kept
	latest   map[reportKey]*umbrav1.AssignmentReport
	unsent   map[reportKey]struct{}
	wake     chan struct{}
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

// Report puts a report in, in place of an earlier one of the same pair and role. A late one, for a pair
// that is no longer assigned in that role, is dropped. The report is the caller's no more.
func (o *Outbox) Report(report *umbrav1.AssignmentReport) {
	key := reportKey{pair: report.GetDrPair(), main: report.GetMain() != nil}
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.assigned[key]; !ok && o.assigned != nil {
		return
	}
	o.latest[key] = report
	o.unsent[key] = struct{}{}
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

// keep forgets the reports of pairs that are not in these sets. It is called before the roles get the sets.
func (o *Outbox) keep(mains, shadows []*umbrav1.Assignment) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.assigned = make(map[reportKey]struct{}, len(mains)+len(shadows))
	for _, assignment := range mains {
		o.assigned[reportKey{pair: assignment.GetDrPair(), main: true}] = struct{}{}
	}
	for _, assignment := range shadows {
		o.assigned[reportKey{pair: assignment.GetDrPair()}] = struct{}{}
	}
	for key := range o.latest {
		if _, ok := o.assigned[key]; !ok {
			delete(o.latest, key)
			delete(o.unsent, key)
		}
	}
}

// take removes at most so many reports, and not many more bytes than asked for: one report at least, if there is one.
func (o *Outbox) take(most, bytes int) []*umbrav1.AssignmentReport {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch := make([]*umbrav1.AssignmentReport, 0, min(most, len(o.unsent)))
	for key := range o.unsent {
		if len(batch) == most || bytes <= 0 {
			break
		}
		bytes -= proto.Size(o.latest[key])
		batch = append(batch, o.latest[key])
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
