package drpair_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// Any sequence of requests, reports and time-outs, in any order, repeated or made up: the promises hold after each.
func TestThePromisesHoldAfterAnySequenceOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rec := newRecord()
		for i := range rapid.IntRange(1, 40).Draw(t, "length") {
			event := anyEvent(t, rec, fmt.Sprintf("op-%d", i))
			before := rec
			change, err := drpair.Apply(rec, event, now)
			var refusal *drpair.NotAllowedError
			if err != nil {
				if !errors.As(err, &refusal) {
					t.Fatalf("%T: %v", event, err)
				}
				continue
			}
			if !reflect.DeepEqual(before, rec) {
				t.Fatalf("%T changed the record it was given", event)
			}
			promises(t, before, change, event)
			if change.Remove {
				return
			}
			rec = change.Record
		}
	})
}

// failer is what *testing.T and *rapid.T have in common.
type failer interface {
	Fatalf(format string, args ...any)
}

func promises(t failer, before drpair.Record, change drpair.Change, event drpair.Event) {
	p := change.Pair
	if !slices.Contains(drpair.States, p.State) {
		t.Fatalf("%T leads to %q, which is no state", event, p.State)
	}
	if p.Epoch < before.Pair.Epoch || p.LastAttempt < before.Pair.LastAttempt {
		t.Fatalf("%T lowers the epoch or the attempt", event)
	}
	if change.Changed != (p.Generation == before.Pair.Generation+1) {
		t.Fatalf("%T: changed %v, generation %d after %d", event, change.Changed, p.Generation, before.Pair.Generation)
	}
	mode, attempt := drpair.DesiredShadow(p)
	if (mode == drpair.ShadowRun || mode == drpair.ShadowCommit) && (attempt == nil || !p.Stopped || !p.Fence.Settled()) {
		t.Fatalf("%T: a server should run (%+v) with stopped %v, fence %+v", event, attempt, p.Stopped, p.Fence)
	}
	if mode == drpair.ShadowReceive && drpair.DesiredMain(p) == drpair.MainFence {
		t.Fatalf("%T: the shadow receives from a main host that is fenced", event)
	}
	if len(drpair.Allowed(p)) == 0 && change.Running() == nil {
		t.Fatalf("%T: nothing is allowed in %s and nothing is running", event, p.State)
	}
	if running := change.Running(); running != nil {
		if _, _, limited := drpair.Budget(change.Record); running.Current() == nil && !limited && p.State != drpair.Committing {
			t.Fatalf("%T: operation %s runs with all steps ended, and nothing limits it", event, running.ID)
		}
	} else if change.Operation != nil && change.Operation.EndTime.IsZero() {
		t.Fatalf("%T: an ended operation without end time", event)
	}
	if change.Superseded != nil && change.Superseded.State != drpair.OperationCancelled {
		t.Fatalf("%T: superseded operation is %s", event, change.Superseded.State)
	}
	again, err := drpair.Apply(change.Record, event, now)
	if _, isRequest := requestAction(event); !isRequest && (err != nil || again.Changed) {
		if rep, ok := event.(drpair.ShadowReported); !ok || !twoSteps(rep, before) {
			t.Fatalf("%#v says something new the second time: error %v, %+v then %+v", event, err, change.Pair, again.Pair)
		}
	}
}

// twoSteps: one report can hold both the stop and the news of an attempt; the machine takes one at a time.
func twoSteps(_ drpair.ShadowReported, before drpair.Record) bool {
	return before.Pair.State == drpair.FailoverProcessing && !before.Pair.Stopped
}

func requestAction(event drpair.Event) (drpair.Action, bool) {
	for action, request := range requests("") {
		if reflect.TypeOf(request) == reflect.TypeOf(event) {
			return action, true
		}
	}
	return "", false
}

func anyEvent(t *rapid.T, rec drpair.Record, id string) drpair.Event {
	all := requests(id)
	epoch := rec.Pair.Epoch - uint64(rapid.IntRange(0, 1).Draw(t, "old epoch"))
	attempt := uint64(rapid.IntRange(0, int(rec.Pair.LastAttempt)+1).Draw(t, "attempt"))
	switch rapid.IntRange(0, 5).Draw(t, "event") {
	case 0, 1:
		return all[rapid.SampledFrom(drpair.Actions).Draw(t, "action")]
	case 2:
		return drpair.MainReported{
			Epoch: epoch, ResyncGeneration: rec.Pair.ResyncGeneration,
			Phase: rapid.SampledFrom([]drpair.MainPhase{
				drpair.MainInitialSync, drpair.MainReplicating, drpair.MainResyncing, drpair.MainPaused,
				drpair.MainError, drpair.MainFenced, drpair.MainReleased,
			}).Draw(t, "main phase"),
			FenceMessage: rapid.SampledFrom([]string{"off", "links down"}).Draw(t, "fence message"),
		}
	case 3, 4:
		return drpair.ShadowReported{
			Epoch: epoch, StoppedEpoch: epoch, Attempt: attempt, HasPoint: rapid.Bool().Draw(t, "has point"),
			RunningAttempt: uint64(rapid.IntRange(0, int(attempt)).Draw(t, "running attempt")),
			Phase: rapid.SampledFrom([]drpair.ShadowPhase{
				drpair.ShadowReceiving, drpair.ShadowStopped, drpair.ShadowStarting, drpair.ShadowRunning,
				drpair.ShadowFailed, drpair.ShadowCommitting, drpair.ShadowCommitted, drpair.ShadowDeleted,
			}).Draw(t, "shadow phase"),
			Failure: &drpair.Failure{Reason: "HYPERVISOR", Message: "it broke"},
		}
	default:
		step, _, _ := drpair.Budget(rec)
		events := []drpair.Event{drpair.MainUnreachable{}}
		if rec.Operation != nil {
			events = append(events, drpair.StepTimeout{OperationID: rec.Operation.ID, Step: step})
		}
		return rapid.SampledFrom(events).Draw(t, "silence")
	}
}
