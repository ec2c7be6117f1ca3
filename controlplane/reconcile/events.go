package reconcile

import (
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// events is everything that is known about a pair now, as events, and when there may be more without anybody saying
// anything.
func (e *Engine) events(rec drpair.Record) (events []drpair.Event, next time.Time, pending bool) {
	p := rec.Pair
	now := e.Clock.Now()
	wait := func(at time.Time) {
		if !pending || at.Before(next) {
			next, pending = at, true
		}
	}
	if main, ok := e.Observed.Host(p.Main.Host); ok && main.Connected {
		// A report of an earlier session is the past: the host reports everything again when it connects.
		if report, ok := e.Observed.Main(p.ID); ok && report.Host == main.ID && report.Session == main.Session {
			events = append(events, mainReported(report))
		}
	} else if at := main.ChangeTime.Add(e.UnreachableAfter); p.State == drpair.FailoverProcessing || !now.Before(at) {
		events = append(events, drpair.MainUnreachable{})
	} else {
		wait(at)
	}
	shadow, ok := e.Observed.Host(p.Shadow.Host)
	if ok && shadow.Connected {
		if report, ok := e.Observed.Shadow(p.ID); ok && report.Host == shadow.ID && report.Session == shadow.Session {
			events = append(events, shadowReported(report))
		}
	}
	step, budget, ok := drpair.Budget(rec)
	if !ok {
		delete(e.waiting, p.ID)
		return events, next, pending
	}
	in := e.waiting[p.ID]
	if in.operation != rec.Operation.ID || in.step != step {
		in = waiting{operation: rec.Operation.ID, step: step, since: now}
		e.waiting[p.ID] = in
	}
	if at := in.since.Add(budget); now.Before(at) {
		wait(at)
	} else {
		events = append(events, drpair.StepTimeout{OperationID: rec.Operation.ID, Step: step, ShadowConnected: shadow.Connected})
	}
	return events, next, pending
}
