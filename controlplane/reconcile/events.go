package reconcile

import (
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
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
	main, _ := e.Observed.Host(p.Main.Host)
	unreachableAt := e.goneSince(main).Add(e.UnreachableAfter)
	switch hasLeft := main.Session > 0; {
	case main.Connected:
		if report, ok := e.Observed.Main(p.ID); ok && current(rec, main, report.Host, report.Session, report.Generation) {
			events = append(events, mainReported(report))
		}
	case hasLeft && p.State == drpair.FailoverProcessing, !now.Before(unreachableAt):
		events = append(events, drpair.MainUnreachable{})
	default:
		wait(unreachableAt)
	}
	shadow, _ := e.Observed.Host(p.Shadow.Host)
	if shadow.Connected {
		if report, ok := e.Observed.Shadow(p.ID); ok && current(rec, shadow, report.Host, report.Session, report.Generation) {
			events = append(events, shadowReported(report))
		}
	}
	step, budget, ok := drpair.Budget(rec)
	if !ok {
		e.steps.forget(p.ID)
		return events, next, pending
	}
	if at := e.steps.since(rec.Operation, step, now).Add(budget); now.Before(at) {
		wait(at)
	} else {
		events = append(events, drpair.StepTimeout{OperationID: rec.Operation.ID, Step: step, ShadowConnected: shadow.Connected})
	}
	return events, next, pending
}

// goneSince is since when a host that is not connected could have been. Nobody could connect before this process ran,
// so a restart of the control plane makes no host look unreachable.
func (e *Engine) goneSince(host observed.Host) time.Time {
	if began := e.steps.began(); host.ChangeTime.Before(began) {
		return began
	}
	return host.ChangeTime
}

// current tells whether a report is about the present: made in the newest session of the pair's host, since a host
// reports everything again when it connects, and not about a later generation, which only an earlier pair of the
// same id can have had.
func current(rec drpair.Record, host observed.Host, by string, session, generation uint64) bool {
	return by == host.ID && session == host.Session && generation <= rec.Pair.Generation
}
