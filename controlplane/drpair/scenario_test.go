package drpair_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

var now = time.Date(2026, 11, 24, 3, 0, 0, 0, time.UTC)

func requests(id string) map[drpair.Action]drpair.Event {
	request := drpair.Request{OperationID: id}
	return map[drpair.Action]drpair.Event{
		drpair.ActionFailover:            drpair.Failover{Request: request, Point: "rp-1"},
		drpair.ActionRestartReplication:  drpair.RestartReplication{Request: request},
		drpair.ActionChangeRecoveryPoint: drpair.ChangeRecoveryPoint{Request: request, Point: "rp-2"},
		drpair.ActionCommitFailover:      drpair.CommitFailover{Request: request},
		drpair.ActionPause:               drpair.Pause{},
		drpair.ActionResume:              drpair.Resume{},
		drpair.ActionUpdate:              drpair.UpdatePolicy{Policy: drpair.DefaultPolicy()},
		drpair.ActionDelete:              drpair.Delete{Request: request},
	}
}

func newRecord() drpair.Record {
	return drpair.New("web", "uid", drpair.Main{Host: "a", Server: "web", UUID: "u"}, drpair.Shadow{Host: "b"}, drpair.DefaultPolicy(), now)
}

// recordIn is a record in that state with what belongs to it.
func recordIn(state drpair.State, paused bool) drpair.Record {
	rec := newRecord()
	rec.Pair.State, rec.Pair.HasPoint, rec.Pair.Paused = state, true, paused
	rec.Pair.Active = &drpair.Attempt{Number: 1, Point: "rp-1"}
	rec.Pair.LastAttempt = 1
	return rec
}

// run applies events one after the other and fails on any error.
func run(t *testing.T, rec drpair.Record, events ...drpair.Event) drpair.Record {
	t.Helper()
	for _, event := range events {
		change, err := drpair.Apply(rec, event, now)
		if err != nil {
			t.Fatalf("%T: %v", event, err)
		}
		rec = change.Record
	}
	return rec
}

func replicating(t *testing.T) drpair.Record {
	t.Helper()
	rec := run(t, newRecord(), drpair.MainReported{Epoch: 1, ResyncGeneration: 1, Phase: drpair.MainReplicating})
	wantState(t, rec, drpair.Replicating)
	return rec
}

func failover(id string) drpair.Failover {
	return drpair.Failover{Request: drpair.Request{OperationID: id}, Point: "rp-1"}
}

func failedOver(t *testing.T) drpair.Record {
	t.Helper()
	rec := run(t, replicating(t), failover("op-1"), stopped(2), drpair.MainUnreachable{}, running(2, 1))
	wantState(t, rec, drpair.FailedOver)
	return rec
}

func stopped(epoch uint64) drpair.ShadowReported {
	return drpair.ShadowReported{Epoch: epoch, StoppedEpoch: epoch, Phase: drpair.ShadowStopped, HasPoint: true}
}

func running(epoch, attempt uint64) drpair.ShadowReported {
	return drpair.ShadowReported{Epoch: epoch, StoppedEpoch: epoch, Phase: drpair.ShadowRunning, Attempt: attempt, HasPoint: true}
}

func failed(epoch, attempt, runs uint64) drpair.ShadowReported {
	return drpair.ShadowReported{
		Epoch: epoch, StoppedEpoch: epoch, Phase: drpair.ShadowFailed, Attempt: attempt, RunningAttempt: runs, HasPoint: true,
		Failure: &drpair.Failure{Reason: "NETWORK_MISSING", Side: drpair.SideShadow, Message: "no network"},
	}
}

func wantState(t *testing.T, rec drpair.Record, want drpair.State) {
	t.Helper()
	if rec.Pair.State != want {
		t.Fatalf("state %s, want %s", rec.Pair.State, want)
	}
}

func wantShadow(t *testing.T, rec drpair.Record, mode drpair.ShadowMode, attempt uint64) {
	t.Helper()
	gotMode, got := drpair.DesiredShadow(rec.Pair)
	if gotMode != mode || (got == nil) != (attempt == 0) || (got != nil && got.Number != attempt) {
		t.Fatalf("the shadow host should be doing %s %+v, want %s of attempt %d", gotMode, got, mode, attempt)
	}
}

func TestNoServerIsStartedBeforeReplicationHasStoppedAndTheMainServerIsFencedOrGivenUpOn(t *testing.T) {
	rec := run(t, replicating(t), failover("op-1"))
	wantState(t, rec, drpair.FailoverProcessing)
	wantShadow(t, rec, drpair.ShadowStop, 0)
	if drpair.DesiredMain(rec.Pair) != drpair.MainFence {
		t.Error("the main host is not told to fence at once")
	}
	rec = run(t, rec, running(2, 1)) // claims to run before it said that it stopped: counts as the stop only
	wantShadow(t, rec, drpair.ShadowStop, 0)
	rec = run(t, rec, drpair.MainReported{Epoch: 2, Phase: drpair.MainFenced, FenceMessage: "shut down"})
	wantShadow(t, rec, drpair.ShadowRun, 1)
	if got := rec.Operation.Steps[1]; got.State != drpair.StepDone || got.Message != "shut down" {
		t.Errorf("the fence step is %+v", got)
	}
}

func TestAFailoverDoesNotWaitForADeadMainHost(t *testing.T) {
	rec := run(t, replicating(t), failover("op-1"), stopped(2), drpair.MainUnreachable{})
	wantShadow(t, rec, drpair.ShadowRun, 1)
	rec = run(t, replicating(t), failover("op-1"), stopped(2),
		drpair.StepTimeout{OperationID: "op-1", Step: drpair.StepFenceMain})
	wantShadow(t, rec, drpair.ShadowRun, 1)
	if rec.Operation.Steps[1].State != drpair.StepSkipped {
		t.Errorf("the fence step is %+v", rec.Operation.Steps[1])
	}
}

func TestAFailoverWaitsLongerForAMainHostThatHasBeenHeardOf(t *testing.T) {
	rec := run(t, replicating(t), failover("op-1"), stopped(2))
	_, silent, _ := drpair.Budget(rec)
	rec = run(t, rec, drpair.MainReported{Epoch: 2, Phase: drpair.MainReplicating})
	_, heard, _ := drpair.Budget(rec)
	if heard != rec.Pair.Policy.FenceTimeout || silent >= heard {
		t.Errorf("waits %v for a silent host and %v for one that was heard of, the policy says %v", silent, heard, rec.Pair.Policy.FenceTimeout)
	}
}

func TestAnAttemptWhoseStepsHaveAllEndedIsNotWaitedForWithoutLimit(t *testing.T) {
	report := drpair.ShadowReported{Epoch: 2, StoppedEpoch: 2, Phase: drpair.ShadowStarting, Attempt: 1, HasPoint: true}
	for _, kind := range drpair.FailoverSteps {
		report.Steps = append(report.Steps, drpair.Step{Kind: kind, State: drpair.StepDone})
	}
	rec := run(t, replicating(t), failover("op-1"), stopped(2), drpair.MainUnreachable{}, report)
	step, _, ok := drpair.Budget(rec)
	if !ok {
		t.Fatal("nothing limits the wait")
	}
	wantState(t, run(t, rec, drpair.StepTimeout{OperationID: "op-1", Step: step}), drpair.FailoverError)
}

func TestAMainHostThatReturnsLaterIsNotedAsFenced(t *testing.T) {
	rec := run(t, failedOver(t), drpair.MainReported{Epoch: 2, Phase: drpair.MainFenced, FenceMessage: "shut down"})
	wantState(t, rec, drpair.FailedOver)
	if rec.Pair.Fence.State != drpair.FenceConfirmed {
		t.Errorf("fence is %+v", rec.Pair.Fence)
	}
}

func TestAFailedFailoverLeavesThreeWaysOn(t *testing.T) {
	rec := run(t, replicating(t), failover("op-1"), stopped(2), drpair.MainUnreachable{}, failed(2, 1, 0))
	wantState(t, rec, drpair.FailoverError)
	wantShadow(t, rec, drpair.ShadowStop, 0)
	if rec.Operation.State != drpair.OperationFailed || rec.Operation.Failure.Reason != "NETWORK_MISSING" ||
		!slices.Contains(rec.Operation.Allowed, drpair.ActionFailover) {
		t.Errorf("the operation is %+v", rec.Operation)
	}

	again := run(t, rec, drpair.Failover{Request: drpair.Request{OperationID: "op-2"}, Point: "rp-0"}, stopped(3), drpair.MainUnreachable{})
	wantShadow(t, again, drpair.ShadowRun, 2)
	wantState(t, run(t, again, running(3, 2)), drpair.FailedOver)

	restarted := run(t, rec, drpair.RestartReplication{Request: drpair.Request{OperationID: "op-2"}})
	wantState(t, restarted, drpair.Resyncing)
	if restarted.Pair.ResyncGeneration != 2 || drpair.DesiredMain(restarted.Pair) != drpair.MainReplicate {
		t.Errorf("restart: %+v", restarted.Pair)
	}
	restarted = run(t, restarted, drpair.MainReported{Epoch: 3, ResyncGeneration: 2, Phase: drpair.MainReplicating})
	wantState(t, restarted, drpair.Replicating)
	if restarted.Operation.State != drpair.OperationSucceeded {
		t.Errorf("the restart is %s when points are made again", restarted.Operation.State)
	}
}

func TestChangeRecoveryPointThatFailsKeepsThePreviousServer(t *testing.T) {
	change := drpair.ChangeRecoveryPoint{Request: drpair.Request{OperationID: "op-2"}, Point: "rp-2"}
	rec := run(t, failedOver(t), change)
	wantShadow(t, rec, drpair.ShadowRun, 2)

	kept := run(t, rec, failed(2, 2, 1))
	wantState(t, kept, drpair.FailedOver)
	wantShadow(t, kept, drpair.ShadowRun, 1)

	lost := run(t, rec, failed(2, 2, 0))
	wantState(t, lost, drpair.FailoverError)

	done := run(t, rec, running(2, 2))
	wantState(t, done, drpair.FailedOver)
	wantShadow(t, done, drpair.ShadowRun, 2)
}

func TestACommitFinishesAndReplicationIsOver(t *testing.T) {
	rec := run(t, failedOver(t), drpair.CommitFailover{Request: drpair.Request{OperationID: "op-2"}, DeletePoints: true})
	wantState(t, rec, drpair.Committing)
	rec = run(t, rec, drpair.ShadowReported{Epoch: 2, Phase: drpair.ShadowCommitted, Attempt: 1})
	wantState(t, rec, drpair.Committed)
	if rec.Operation.State != drpair.OperationSucceeded || drpair.DesiredMain(rec.Pair) != drpair.MainFence {
		t.Errorf("operation %s, main %s", rec.Operation.State, drpair.DesiredMain(rec.Pair))
	}
}

func TestAReportOfAnotherEpochSaysNothing(t *testing.T) {
	rec := run(t, replicating(t), failover("op-1"))
	for _, event := range []drpair.Event{
		stopped(1), running(1, 1),
		drpair.MainReported{Epoch: 1, ResyncGeneration: 1, Phase: drpair.MainReplicating},
		drpair.MainReported{Epoch: 1, Phase: drpair.MainFenced},
	} {
		change, err := drpair.Apply(rec, event, now)
		if err != nil || change.Changed {
			t.Errorf("%+v: changed %v, error %v", event, change.Changed, err)
		}
	}
}

func TestNoSpacePausesReplicationAndItGoesOnByItself(t *testing.T) {
	full := drpair.MainReported{Epoch: 1, ResyncGeneration: 1, Phase: drpair.MainError, Failure: &drpair.Failure{Reason: drpair.ReasonNoSpace, Message: "full"}}
	rec := run(t, replicating(t), full)
	wantState(t, rec, drpair.ReplicationPaused)
	if rec.Pair.Failure == nil || rec.Pair.Failure.Reason != drpair.ReasonNoSpace {
		t.Errorf("failure %+v", rec.Pair.Failure)
	}
	rec = run(t, rec, drpair.MainReported{Epoch: 1, ResyncGeneration: 1, Phase: drpair.MainReplicating})
	wantState(t, rec, drpair.Replicating)
}

func TestADeletedPairIsRemovedWhenBothHostsHaveLetGo(t *testing.T) {
	rec := run(t, replicating(t), drpair.Delete{Request: drpair.Request{OperationID: "op-1"}})
	wantState(t, rec, drpair.Deleting)
	for _, step := range rec.Operation.Steps { // a host that is away is named, and what to do without it
		if step.State != drpair.StepRunning || !strings.Contains(step.Message, "with force") {
			t.Errorf("step %+v", step)
		}
	}
	rec = run(t, rec, drpair.MainReported{Epoch: 2, Phase: drpair.MainReleased})
	if steps := rec.Operation.Steps; steps[0].State != drpair.StepDone || steps[1].State != drpair.StepRunning {
		t.Errorf("steps %+v", steps)
	}
	change, err := drpair.Apply(rec, drpair.ShadowReported{Epoch: 2, Phase: drpair.ShadowDeleted}, now)
	if err != nil || !change.Remove || change.Operation.State != drpair.OperationSucceeded {
		t.Errorf("remove %v, operation %+v, error %v", change.Remove, change.Operation, err)
	}
}
