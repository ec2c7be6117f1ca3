package drpair

import "time"

// MainPhase is how far the main host is.
type MainPhase string

// The phases that a main host reports.
const (
	MainInitialSync MainPhase = "INITIAL_SYNC"
	MainReplicating MainPhase = "REPLICATING"
	MainResyncing   MainPhase = "RESYNCING"
	MainPaused      MainPhase = "PAUSED"
	MainError       MainPhase = "ERROR"
	MainFenced      MainPhase = "FENCED"
	MainReleased    MainPhase = "RELEASED"
)

// MainReported is what the main host observes. A report of another epoch says nothing about this one.
type MainReported struct {
	Epoch            uint64
	ResyncGeneration uint64
	Phase            MainPhase
	Failure          *Failure
	FenceMessage     string
}

func (e MainReported) apply(rec Record, now time.Time) (Change, error) {
	p := &rec.Pair
	switch {
	case e.Epoch != p.Epoch, p.Restored:
		return unchanged(rec), nil
	case p.State == Deleting:
		if e.Phase != MainReleased || p.MainReleased {
			return unchanged(rec), nil
		}
		p.MainReleased = true
		rec.Operation.end(StepStopReplication, StepDone, "The main host has nothing of the pair any more.", now)
		return gone(rec, now), nil
	case p.State.replicates():
		return replicationReported(rec, e, now), nil
	case e.Phase == MainFenced:
		return fenceSettled(rec, FenceConfirmed, e.FenceMessage, now), nil
	case p.Fence.State == FencePending:
		p.Fence.State = FenceUnderway
		return changed(rec), nil
	default:
		return unchanged(rec), nil
	}
}

// replicationReported follows the main host among the states of replication.
func replicationReported(rec Record, e MainReported, now time.Time) Change {
	p := &rec.Pair
	if p.Paused || e.ResyncGeneration != p.ResyncGeneration {
		return unchanged(rec)
	}
	var state State
	failure := e.Failure
	switch e.Phase {
	case MainInitialSync:
		state = InitialSync
	case MainReplicating:
		state = Replicating
	case MainResyncing:
		state = Resyncing
	case MainError:
		state = ReplicationError
		if failure != nil && failure.Reason == ReasonNoSpace {
			state = ReplicationPaused
		}
	default: // PAUSED before it has heard of a resume; FENCED and RELEASED do not belong to this epoch
		return unchanged(rec)
	}
	completes := state == Replicating && rec.Running() != nil
	if state == p.State && failure.same(p.Failure) && !completes {
		return unchanged(rec)
	}
	p.State, p.Failure = state, failure
	if state == Replicating {
		p.HasPoint = true
	}
	if completes {
		rec = settle(rec, Replicating, OperationSucceeded, failure, now)
		rec.Operation.Failure = nil
	}
	return changed(rec)
}

// ShadowPhase is how far the shadow host is.
type ShadowPhase string

// The phases that a shadow host reports.
const (
	ShadowReceiving  ShadowPhase = "RECEIVING"
	ShadowStopped    ShadowPhase = "STOPPED"
	ShadowStarting   ShadowPhase = "STARTING"
	ShadowRunning    ShadowPhase = "RUNNING"
	ShadowFailed     ShadowPhase = "FAILED"
	ShadowCommitting ShadowPhase = "COMMITTING"
	ShadowCommitted  ShadowPhase = "COMMITTED"
	ShadowDeleted    ShadowPhase = "DELETED"
)

// ShadowReported is what the shadow host observes.
type ShadowReported struct {
	Epoch          uint64
	Phase          ShadowPhase
	StoppedEpoch   uint64
	Attempt        uint64
	Steps          []Step
	Failure        *Failure
	RunningAttempt uint64
	RunningPoint   string
	HasPoint       bool
}

func (e ShadowReported) apply(rec Record, now time.Time) (Change, error) {
	p := &rec.Pair
	if e.Epoch != p.Epoch || p.Restored {
		return unchanged(rec), nil
	}
	switch p.State {
	case FailoverProcessing, ChangingRecoveryPoint:
		return attemptReported(rec, e, now), nil
	case Committing:
		return commitReported(rec, e, now), nil
	case Deleting:
		if e.Phase != ShadowDeleted || p.ShadowDeleted {
			return unchanged(rec), nil
		}
		p.ShadowDeleted = true
		rec.Operation.end(StepDeletePoints, StepDone, "The shadow host has nothing of the pair any more.", now)
		return gone(rec, now), nil
	default:
		if !p.State.replicates() || e.HasPoint == p.HasPoint {
			return unchanged(rec), nil
		}
		p.HasPoint = e.HasPoint
		return changed(rec), nil
	}
}

func gone(rec Record, now time.Time) Change {
	change := changed(rec)
	if rec.Pair.MainReleased && rec.Pair.ShadowDeleted {
		change = removed(change, now)
	}
	return change
}

// attemptReported takes a failover, or a change of the recovery point, from step to step.
func attemptReported(rec Record, e ShadowReported, now time.Time) Change {
	p := &rec.Pair
	if p.State == FailoverProcessing && !p.Stopped {
		if e.StoppedEpoch < p.Epoch {
			return unchanged(rec)
		}
		p.Stopped = true
		rec.Operation.end(StepStopReplication, StepDone, "The shadow host refuses everything older from now on.", now)
		rec.Operation.begin(StepFenceMain, now)
		if p.Fence.Settled() {
			rec.Operation.end(StepFenceMain, fenceStep(p.Fence.State), p.Fence.Message, now)
		}
		return changed(rec)
	}
	if e.Attempt != p.Wanted.Number || (p.State == FailoverProcessing && !p.Fence.Settled()) {
		return unchanged(rec)
	}
	moved := mergeSteps(rec.Operation, e.Steps)
	switch e.Phase {
	case ShadowRunning:
		p.Active, p.Wanted = p.Wanted, nil
		return changed(settle(rec, FailedOver, OperationSucceeded, nil, now))
	case ShadowFailed:
		if p.Active == nil && e.RunningAttempt != 0 && e.RunningPoint != "" { // only after a restore is that not known
			p.State, p.Active = ChangingRecoveryPoint, &Attempt{Number: e.RunningAttempt, Point: e.RunningPoint}
		}
		return changed(attemptFailed(rec, e.Failure, e.RunningAttempt, now))
	default:
		return Change{Record: rec, Changed: moved}
	}
}

// attemptFailed ends the attempt. The server that ran before a change goes on if it still runs.
func attemptFailed(rec Record, failure *Failure, runningAttempt uint64, now time.Time) Record {
	p := &rec.Pair
	p.Wanted = nil
	if p.State == ChangingRecoveryPoint && p.Active != nil && runningAttempt == p.Active.Number {
		return settle(rec, FailedOver, OperationFailed, failure, now)
	}
	p.Active = nil
	return settle(rec, FailoverError, OperationFailed, failure, now)
}

func commitReported(rec Record, e ShadowReported, now time.Time) Change {
	moved := mergeSteps(rec.Operation, e.Steps)
	switch {
	case e.Phase == ShadowCommitted:
		rec.Pair.HasPoint = rec.Pair.HasPoint && !rec.Pair.DeletePoints
		return changed(settle(rec, Committed, OperationSucceeded, nil, now))
	case e.Phase == ShadowCommitting && !e.Failure.same(rec.Pair.Failure):
		rec.Pair.Failure = e.Failure
		return changed(rec)
	default:
		return Change{Record: rec, Changed: moved}
	}
}

// mergeSteps takes over what the host says of its steps, and tells whether that is news. Steps of the control plane
// are not the host's to change, an ended step does not begin again, and a state that is not known here says nothing.
func mergeSteps(op *Operation, reported []Step) bool {
	moved := false
	for _, from := range reported {
		step := op.step(from.Kind)
		if step == nil || step.ended() || from.State == "" || from.Kind == StepStopReplication || from.Kind == StepFenceMain {
			continue
		}
		if from.State != step.State || from.Message != step.Message {
			*step, moved = from, true
		}
	}
	return moved
}
