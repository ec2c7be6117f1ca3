package reconcile

import (
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
)

// finding is something that is known about a pair, as an event, with the sessions of hosts that it rests on.
type finding struct {
	event    drpair.Event
	sessions []store.Session
}

// findings is everything that is known about a pair now, and when there may be more without anybody saying anything.
// What hosts report is left to the control plane that has their session; the rest any one can find.
func (e *Engine) findings(rec drpair.Record) (found []finding, next time.Time, pending bool) {
	p := rec.Pair
	now := e.Clock.Now()
	wait := func(at time.Time) {
		if !pending || at.Before(next) {
			next, pending = at, true
		}
	}
	if p.Restored {
		return e.restored(p, now)
	}
	find := func(event drpair.Event, sessions ...store.Session) { found = append(found, finding{event, sessions}) }
	main, _ := e.Observed.Host(p.Main.Host)
	unreachableAt := e.goneSince(main).Add(e.UnreachableAfter)
	switch {
	case main.Connected:
		if report, ok := e.Observed.Main(p.ID); ok && e.here(main) && report.Of(p.UID) && current(rec, main, report.Host, report.Session, report.Generation) {
			find(mainReported(report), store.Session{Host: main.ID, Number: main.Session})
		}
	case main.Left && p.State == drpair.FailoverProcessing, !now.Before(unreachableAt):
		find(drpair.MainUnreachable{}, store.Session{Host: p.Main.Host})
	default:
		wait(unreachableAt)
	}
	shadow, _ := e.Observed.Host(p.Shadow.Host)
	if shadow.Connected && e.here(shadow) {
		if report, ok := e.Observed.Shadow(p.ID); ok && report.Of(p.UID) && current(rec, shadow, report.Host, report.Session, report.Generation) {
			find(shadowReported(report), store.Session{Host: shadow.ID, Number: shadow.Session})
		}
	}
	step, budget, ok := drpair.Budget(rec)
	if !ok {
		e.steps.forget(p.ID)
		return found, next, pending
	}
	if at := e.steps.since(rec.Operation, step, now).Add(budget); now.Before(at) {
		wait(at)
	} else {
		find(drpair.StepTimeout{OperationID: rec.Operation.ID, Step: step, ShadowConnected: shadow.Connected})
	}
	return found, next, pending
}

// here tells whether the host has its session with this control plane.
func (e *Engine) here(host observed.Host) bool { return host.Holder == e.Self }

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
