package drpair

import "time"

// Failover asks for the shadow server to be booted from Point, which exists. The epoch rises: from the moment this
// is stored, no older stream counts, whether the main host hears of it or not.
type Failover struct {
	Request
	Point string
	Force bool
}

func (e Failover) apply(rec Record, now time.Time) (Change, error) {
	if err := check(rec, ActionFailover); err != nil {
		return Change{}, err
	}
	p := &rec.Pair
	p.Epoch++
	p.State, p.Failure, p.Paused = FailoverProcessing, nil, false
	p.Stopped, p.Active = false, nil
	p.LastAttempt++
	p.Wanted = &Attempt{Number: p.LastAttempt, Point: e.Point, Force: e.Force}
	p.Fence = Fence{State: FencePending, Since: now}
	next, superseded := start(rec, e.Request, KindFailover, pendingSteps(FailoverSteps...), now)
	next.Operation.Point, next.Operation.Attempt = e.Point, p.LastAttempt
	next.Operation.begin(StepStopReplication, now)
	return Change{Record: next, Superseded: superseded, Changed: true}, nil
}

// ChangeRecoveryPoint asks for the shadow server to be booted from another point, which exists.
type ChangeRecoveryPoint struct {
	Request
	Point string
	Force bool
}

func (e ChangeRecoveryPoint) apply(rec Record, now time.Time) (Change, error) {
	if err := check(rec, ActionChangeRecoveryPoint); err != nil {
		return Change{}, err
	}
	p := &rec.Pair
	p.State, p.Failure = ChangingRecoveryPoint, nil
	p.LastAttempt++
	p.Wanted = &Attempt{Number: p.LastAttempt, Point: e.Point, Force: e.Force}
	next, superseded := start(rec, e.Request, KindChangeRecoveryPoint, pendingSteps(changeSteps...), now)
	next.Operation.Point, next.Operation.Attempt = e.Point, p.LastAttempt
	return Change{Record: next, Superseded: superseded, Changed: true}, nil
}

// CommitFailover asks for the shadow server to stand alone, and for the points to be deleted or kept.
type CommitFailover struct {
	Request
	DeletePoints bool
}

func (e CommitFailover) apply(rec Record, now time.Time) (Change, error) {
	if err := check(rec, ActionCommitFailover); err != nil {
		return Change{}, err
	}
	p := &rec.Pair
	p.State, p.Failure, p.DeletePoints = Committing, nil, e.DeletePoints
	steps := pendingSteps(StepFlattenDisks)
	if e.DeletePoints {
		steps = pendingSteps(StepFlattenDisks, StepDeletePoints)
	}
	next, superseded := start(rec, e.Request, KindCommitFailover, steps, now)
	next.Operation.Point, next.Operation.DeletePoints = p.Active.Point, e.DeletePoints
	return Change{Record: next, Superseded: superseded, Changed: true}, nil
}

// RestartReplication asks for replication from the beginning. The main server, if a failover fenced it, may run again.
type RestartReplication struct {
	Request
	DeletePoints bool
}

func (e RestartReplication) apply(rec Record, now time.Time) (Change, error) {
	if err := check(rec, ActionRestartReplication); err != nil {
		return Change{}, err
	}
	p := &rec.Pair
	p.Epoch++
	p.ResyncGeneration++
	p.DeletePointsOnResync = e.DeletePoints
	p.HasPoint = p.HasPoint && !e.DeletePoints
	p.State = InitialSync
	if p.HasPoint {
		p.State = Resyncing
	}
	p.Failure, p.Paused, p.Stopped, p.Wanted, p.Active, p.Fence = nil, false, false, nil, nil, Fence{}
	next, superseded := start(rec, e.Request, KindRestartReplication, pendingSteps(StepResynchronize), now)
	next.Operation.DeletePoints = e.DeletePoints
	next.Operation.begin(StepResynchronize, now)
	return Change{Record: next, Superseded: superseded, Changed: true}, nil
}

// Pause asks for no new points. Changes are still tracked.
type Pause struct{}

func (Pause) apply(rec Record, now time.Time) (Change, error) {
	if err := check(rec, ActionPause); err != nil {
		return Change{}, err
	}
	rec.Pair.State, rec.Pair.Paused, rec.Pair.Failure = ReplicationPaused, true, nil
	return changed(rec), nil
}

// Resume asks for points again. The state follows when the main host reports that it is at it.
type Resume struct{}

func (Resume) apply(rec Record, _ time.Time) (Change, error) {
	if err := check(rec, ActionResume); err != nil {
		return Change{}, err
	}
	rec.Pair.Paused = false
	return changed(rec), nil
}

// UpdatePolicy replaces the policy.
type UpdatePolicy struct{ Policy Policy }

func (e UpdatePolicy) apply(rec Record, _ time.Time) (Change, error) {
	if err := check(rec, ActionUpdate); err != nil {
		return Change{}, err
	}
	rec.Pair.Policy = e.Policy
	return changed(rec), nil
}

// Delete asks for the end of the protection. Force does not wait for hosts that are gone for good.
type Delete struct {
	Request
	Force bool
}

func (e Delete) apply(rec Record, now time.Time) (Change, error) {
	if err := check(rec, ActionDelete); err != nil {
		return Change{}, err
	}
	p := &rec.Pair
	if p.Restored { // what the hosts hold may be worth more than this record
		rec, superseded := start(rec, e.Request, KindDelete, nil, now)
		return removed(Change{Record: rec, Superseded: superseded}, now), nil
	}
	var superseded *Operation
	if p.State != Deleting {
		p.WasCommitted = p.State == Committed
		p.State, p.Failure = Deleting, nil
		p.Epoch++
		rec, superseded = start(rec, e.Request, KindDelete, pendingSteps(StepStopReplication, StepDeletePoints), now)
		rec.Operation.beginDeletion(now)
	}
	change := Change{Record: rec, Superseded: superseded, Changed: true}
	if e.Force {
		rec.Operation.say(StepStopReplication, "The main host was not waited for.")
		rec.Operation.say(StepDeletePoints, "The shadow host was not waited for.")
		change = removed(change, now)
	}
	return change, nil
}

func removed(change Change, now time.Time) Change {
	change.Record = settle(change.Record, Deleting, OperationSucceeded, nil, now)
	change.Changed, change.Remove = true, true
	return change
}
