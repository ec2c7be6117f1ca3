package drpair

import "time"

const (
	stopBudget = time.Minute
	// hearBudget is how long a failover waits for any word of a main host whose session seems to be open. A host that
	// lives takes up its assignment at once; the session of one that has just died is open until its lease lapses.
	hearBudget    = 2 * time.Second
	attemptBudget = 5 * time.Minute
)

// Budget tells how long the step that the running operation is in may take, counted from when a control plane first
// sees it so. ok is false when nothing is waited for with a limit: a commit that is stored finishes, and a
// resync takes as long as the disks are large.
func Budget(rec Record) (step StepKind, budget time.Duration, ok bool) {
	running := rec.Running()
	if running == nil || rec.Pair.Restored || len(running.Steps) == 0 {
		return "", 0, false
	}
	// All steps may have ended before the host says that the attempt has: that is waited for with the last one.
	current := running.Steps[len(running.Steps)-1].Kind
	if step := running.Current(); step != nil {
		current = step.Kind
	}
	switch rec.Pair.State {
	case FailoverProcessing:
		switch {
		case !rec.Pair.Stopped:
			return StepStopReplication, stopBudget, true
		case rec.Pair.Fence.State == FencePending:
			return StepFenceMain, min(hearBudget, rec.Pair.Policy.FenceTimeout), true
		case !rec.Pair.Fence.Settled():
			return StepFenceMain, rec.Pair.Policy.FenceTimeout, true
		}
		return current, attemptBudget + rec.Pair.Policy.Verification.Timeout, true
	case ChangingRecoveryPoint:
		return current, attemptBudget + rec.Pair.Policy.Verification.Timeout, true
	default:
		return "", 0, false
	}
}

// StepTimeout says that the step of the operation has used up its Budget.
type StepTimeout struct {
	OperationID     string
	Step            StepKind
	ShadowConnected bool
}

func (e StepTimeout) apply(rec Record, now time.Time) (Change, error) {
	step, _, ok := Budget(rec)
	if !ok || rec.Operation.ID != e.OperationID || step != e.Step {
		return unchanged(rec), nil
	}
	if step == StepFenceMain {
		return fenceSettled(rec, FenceUnconfirmed,
			"The main host did not confirm in time. Its replication is refused by epoch; when it returns, the on_main_return policy is applied.", now), nil
	}
	failure := deadline(step, SideShadow, now)
	if !e.ShadowConnected {
		failure = shadowUnreachable(now)
		failure.Step = step
	}
	return changed(attemptFailed(rec, failure, 0, now)), nil
}

// MainUnreachable says that the main host has no session.
type MainUnreachable struct{}

func (MainUnreachable) apply(rec Record, now time.Time) (Change, error) {
	p := &rec.Pair
	switch {
	case p.Restored:
		return unchanged(rec), nil
	case p.State == FailoverProcessing && p.Stopped && !p.Fence.Settled():
		return fenceSettled(rec, FenceUnconfirmed,
			"The main host is not connected. Its replication is refused by epoch; when it returns, the on_main_return policy is applied.", now), nil
	case p.State.replicates() && !p.Paused:
		return unreachable(rec, mainUnreachable(now)), nil
	default:
		return unchanged(rec), nil
	}
}

func unreachable(rec Record, failure *Failure) Change {
	if rec.Pair.State == ReplicationError && failure.same(rec.Pair.Failure) {
		return unchanged(rec)
	}
	rec.Pair.State, rec.Pair.Failure = ReplicationError, failure
	return changed(rec)
}

// fenceSettled notes what became of the main server, and lets a failover that waits for it go on.
func fenceSettled(rec Record, state FenceState, message string, now time.Time) Change {
	fence := &rec.Pair.Fence
	if fence.State == state && fence.Message == message {
		return unchanged(rec)
	}
	if fence.State == FenceConfirmed && state == FenceUnconfirmed {
		return unchanged(rec)
	}
	*fence = Fence{State: state, Message: message, Since: now}
	if rec.Pair.State == FailoverProcessing && rec.Pair.Stopped {
		rec.Operation.end(StepFenceMain, fenceStep(state), message, now)
	}
	return changed(rec)
}

func fenceStep(state FenceState) StepState {
	if state == FenceConfirmed {
		return StepDone
	}
	return StepSkipped
}
