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
	answers  map[reportKey]answer
	wake     chan struct{}
}

// answer tells the control plane what is held of a pair that it has asked about.
type answer struct {
	asked *umbrav1.Assignment
	held  *umbrav1.Held
}

func (a answer) key() reportKey {
	return reportKey{pair: a.asked.GetDrPair(), main: a.asked.GetMain() != nil}
}

// foreign tells whether nothing is held of the pair that was asked about: nothing at all, or what is held is of another pair of that id.
func (a answer) foreign() bool {
	held := a.held.GetAssignment()
	return held == nil || held.GetDrPairUid() != a.asked.GetDrPairUid() || (held.GetMain() != nil) != a.key().main
}

// in puts the answer into a report of the role. Of a pair that nothing is held of it makes the report, since no role has one.
func (a answer) in(report *umbrav1.AssignmentReport) *umbrav1.AssignmentReport {
	if !a.foreign() {
		report = proto.CloneOf(report)
		report.Held = a.held
		return report
	}
	report = &umbrav1.AssignmentReport{DrPair: a.asked.GetDrPair(), DrPairUid: a.asked.GetDrPairUid(), Held: a.held}
	if a.key().main {
		report.Role = &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{}}
	} else {
		report.Role = &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{}}
	}
	return report
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

// keep forgets the reports of pairs that are not in these sets, and has the answers sent. It is called before the roles get the sets.
func (o *Outbox) keep(mains, shadows []*umbrav1.Assignment, answers []answer) {
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
	o.answers = make(map[reportKey]answer, len(answers))
	for _, one := range answers {
		key := one.key()
		o.answers[key] = one
		if _, reported := o.latest[key]; reported || one.foreign() {
			o.unsent[key] = struct{}{}
			o.signal()
		}
	}
}

// report is what is to be sent of a pair.
func (o *Outbox) report(key reportKey) *umbrav1.AssignmentReport {
	if one, asked := o.answers[key]; asked {
		return one.in(o.latest[key])
	}
	return o.latest[key]
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
		delete(o.unsent, key)
		if report := o.report(key); report != nil {
			bytes -= proto.Size(report)
			batch = append(batch, report)
		}
	}
	return batch
}

func (o *Outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
