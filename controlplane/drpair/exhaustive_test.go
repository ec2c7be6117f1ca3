package drpair_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// statesMax bounds the walk; it ends by itself far below.
const statesMax = 100_000

// Every record that any sequence of requests, reports and time-outs can lead to, however long: the promises hold after
// each event, and from each record what is under way comes to an end.
func TestThePromisesHoldInEveryRecordThatCanBeReached(t *testing.T) {
	first := newRecord()
	seen := map[string]bool{essence(t, first): true}
	depth, events := 0, 0
	for layer := []drpair.Record{first}; len(layer) > 0; depth++ {
		var next []drpair.Record
		for _, rec := range layer {
			endsWithHosts(t, rec)
			endsWithoutHosts(t, rec)
			for _, event := range everyEvent(rec) {
				events++
				change, ok := step(t, rec, event)
				if !ok || change.Remove || !change.Changed {
					continue
				}
				if key := essence(t, change.Record); !seen[key] {
					seen[key] = true
					next = append(next, change.Record)
				}
			}
		}
		if len(seen) > statesMax {
			t.Fatalf("more than %d records at depth %d", statesMax, depth)
		}
		layer = next
	}
	for _, state := range drpair.States {
		if !reached(seen, state) {
			t.Errorf("no sequence leads to %s: the walk proves nothing of it", state)
		}
	}
	t.Logf("%d records, %d events applied, no new record after %d events in a row", len(seen), events, depth)
}

// step applies an event. It is false for a request that is refused.
func step(t *testing.T, rec drpair.Record, event drpair.Event) (drpair.Change, bool) {
	t.Helper()
	change, err := drpair.Apply(rec, event, now)
	var refusal *drpair.NotAllowedError
	switch {
	case errors.As(err, &refusal):
		if action, _ := requestAction(event); slices.Contains(drpair.Allowed(rec.Pair), action) {
			t.Fatalf("%s is allowed in %s and refused: %v", action, rec.Pair.State, err)
		}
		return drpair.Change{}, false
	case err != nil:
		t.Fatalf("%T: %v", event, err)
	}
	promises(t, rec, change, event)
	if change.Changed && past(event, rec.Pair.Epoch) {
		t.Fatalf("%#v is of an epoch that is over and changes the pair", event)
	}
	stoppedBefore := rec.Pair.Stopped && rec.Pair.Epoch == change.Pair.Epoch
	if said, ok := event.(drpair.ShadowReported); change.Pair.State != drpair.Deleting && change.Pair.Stopped && !stoppedBefore &&
		(!ok || said.StoppedEpoch < change.Pair.Epoch) {
		t.Fatalf("%#v: the shadow host never said that it has stopped epoch %d", event, change.Pair.Epoch)
	}
	if change.Pair.Epoch > rec.Pair.Epoch && change.Pair.State != drpair.Deleting && change.Pair.Fence.Settled() {
		t.Fatalf("%#v: the fence of an epoch before counts in epoch %d", event, change.Pair.Epoch)
	}
	if started := change.Operation; started != nil && rec.Running() != nil && started.ID != rec.Operation.ID && change.Superseded == nil {
		t.Fatalf("%T: operation %s is forgotten while it runs", event, rec.Operation.ID)
	}
	return change, true
}

func past(event drpair.Event, epoch uint64) bool {
	switch e := event.(type) {
	case drpair.MainReported:
		return e.Epoch != epoch
	case drpair.ShadowReported:
		return e.Epoch != epoch
	}
	return false
}

// essence is the record without what no decision depends on: times, ids, and how far the counters are.
func essence(t *testing.T, rec drpair.Record) string {
	t.Helper()
	p := rec.Pair
	relative := func(a *drpair.Attempt) *drpair.Attempt {
		if a == nil {
			return nil
		}
		return &drpair.Attempt{Number: p.LastAttempt - a.Number}
	}
	p.Wanted, p.Active = relative(p.Wanted), relative(p.Active)
	var op drpair.Operation
	if running := rec.Running(); running != nil { // one that has ended decides nothing any more
		op.Kind, op.State, op.Epoch, op.Attempt = running.Kind, running.State, p.Epoch-running.Epoch, p.LastAttempt-running.Attempt
		for _, step := range running.Steps {
			if !slices.Contains([]drpair.StepState{drpair.StepPending, drpair.StepRunning}, step.State) {
				step.State = drpair.StepDone // how it ended decides nothing either
			}
			op.Steps = append(op.Steps, drpair.Step{Kind: step.Kind, State: step.State})
		}
	}
	p.Failure, p.Fence.Since, p.UpdateTime = timeless(p.Failure), time.Time{}, time.Time{}
	p.Generation, p.Epoch, p.ResyncGeneration, p.LastAttempt = 0, 0, 0, 0
	key, err := json.Marshal(drpair.Record{Pair: p, Operation: &op})
	if err != nil {
		t.Fatal(err)
	}
	return string(key)
}

func timeless(f *drpair.Failure) *drpair.Failure {
	if f == nil {
		return nil
	}
	return &drpair.Failure{Reason: f.Reason, Side: f.Side}
}

func reached(seen map[string]bool, state drpair.State) bool {
	for key := range seen {
		var rec drpair.Record
		if json.Unmarshal([]byte(key), &rec) == nil && rec.Pair.State == state {
			return true
		}
	}
	return false
}

// endsWithHosts: hosts that do what they are told, and say so, end whatever is under way, once nobody wants a pause.
func endsWithHosts(t *testing.T, rec drpair.Record) {
	t.Helper()
	begun := rec
	if rec.Pair.Paused {
		change, _ := step(t, rec, drpair.Resume{})
		rec = change.Record
	}
	for range 8 {
		if rec.Running() == nil {
			return
		}
		for _, report := range obedient(rec.Pair) {
			change, ok := step(t, rec, report)
			if !ok {
				t.Fatalf("%#v is refused", report)
			}
			if change.Remove {
				return
			}
			rec = change.Record
		}
	}
	t.Fatalf("operation %+v never ends though the hosts do what they are told; the pair began as %+v", rec.Operation, begun.Pair)
}

// obedient is what hosts report that have done what the pair asks of them.
func obedient(p drpair.Pair) []drpair.Event {
	main := drpair.MainReported{Epoch: p.Epoch, ResyncGeneration: p.ResyncGeneration, FenceMessage: "off"}
	main.Phase = map[drpair.MainMode]drpair.MainPhase{
		drpair.MainReplicate: drpair.MainReplicating, drpair.MainPause: drpair.MainPaused,
		drpair.MainFence: drpair.MainFenced, drpair.MainRelease: drpair.MainReleased,
	}[drpair.DesiredMain(p)]
	mode, attempt := drpair.DesiredShadow(p)
	shadow := drpair.ShadowReported{Epoch: p.Epoch, HasPoint: p.HasPoint}
	shadow.Phase = map[drpair.ShadowMode]drpair.ShadowPhase{
		drpair.ShadowReceive: drpair.ShadowReceiving, drpair.ShadowStop: drpair.ShadowStopped, drpair.ShadowRun: drpair.ShadowRunning,
		drpair.ShadowCommit: drpair.ShadowCommitted, drpair.ShadowDelete: drpair.ShadowDeleted,
	}[mode]
	if mode != drpair.ShadowReceive {
		shadow.StoppedEpoch = p.Epoch
	}
	if attempt != nil {
		shadow.Attempt, shadow.RunningAttempt = attempt.Number, attempt.Number
	}
	return []drpair.Event{main, shadow}
}

// endsWithoutHosts: when no host is ever heard of again, what has a limit ends by it, and what has none (a stored commit, a
// resync, a deletion) leaves a pair that can be acted on or waits for its host by design.
func endsWithoutHosts(t *testing.T, rec drpair.Record) {
	t.Helper()
	for range 8 {
		current, budget, limited := drpair.Budget(rec)
		if !limited {
			break
		}
		if budget <= 0 {
			t.Fatalf("step %s has a limit of %v", current, budget)
		}
		change, ok := step(t, rec, drpair.StepTimeout{OperationID: rec.Operation.ID, Step: current})
		if !ok || !change.Changed {
			t.Fatalf("step %s in %s used up its time and nothing happened", current, rec.Pair.State)
		}
		rec = change.Record
	}
	if _, _, limited := drpair.Budget(rec); limited {
		t.Fatalf("operation %+v outlives all its limits", rec.Operation)
	}
	if len(drpair.Allowed(rec.Pair)) == 0 && rec.Pair.State != drpair.Committing {
		t.Fatalf("in %s without hosts nothing is allowed", rec.Pair.State)
	}
}

// everyEvent is each kind of event with each value that a decision depends on: of this epoch and the one before, of the last
// attempt and none, with and without points and failures.
func everyEvent(rec drpair.Record) []drpair.Event {
	id := fmt.Sprintf("op-%d", rec.Pair.Generation)
	request := drpair.Request{OperationID: id}
	events := []drpair.Event{
		drpair.MainUnreachable{},
		drpair.RestartReplication{Request: request, DeletePoints: true},
		drpair.CommitFailover{Request: request, DeletePoints: true},
		drpair.Delete{Request: request, Force: true},
	}
	for _, event := range requests(id) {
		events = append(events, event)
	}
	if running := rec.Running(); running != nil {
		for _, step := range running.Steps {
			for _, connected := range []bool{false, true} {
				events = append(events, drpair.StepTimeout{OperationID: running.ID, Step: step.Kind, ShadowConnected: connected})
			}
		}
		events = append(events, drpair.StepTimeout{OperationID: "another", Step: running.Steps[0].Kind})
	}
	events = append(events, everyMainReport(rec)...)
	events = append(events, everyShadowReport(rec)...)
	return append(events, everyStepReport(rec)...)
}

func everyMainReport(rec drpair.Record) (events []drpair.Event) {
	for _, phase := range []drpair.MainPhase{
		drpair.MainInitialSync, drpair.MainReplicating, drpair.MainResyncing, drpair.MainPaused,
		drpair.MainError, drpair.MainFenced, drpair.MainReleased,
	} {
		for _, generation := range []uint64{rec.Pair.ResyncGeneration, rec.Pair.ResyncGeneration - 1} {
			for _, failure := range []*drpair.Failure{nil, {Reason: drpair.ReasonNoSpace}, {Reason: "HYPERVISOR"}} {
				report := drpair.MainReported{
					Epoch: rec.Pair.Epoch, ResyncGeneration: generation, Phase: phase, Failure: failure, FenceMessage: "off",
				}
				events = append(events, report)
				if failure == nil {
					report.Epoch--
					events = append(events, report)
				}
			}
		}
	}
	return events
}

func everyShadowReport(rec drpair.Record) (events []drpair.Event) {
	epoch := rec.Pair.Epoch
	attempts := []uint64{0}
	for n := rec.Pair.LastAttempt; n > 0 && n+2 > rec.Pair.LastAttempt; n-- {
		attempts = append(attempts, n)
	}
	for _, phase := range []drpair.ShadowPhase{
		drpair.ShadowReceiving, drpair.ShadowStopped, drpair.ShadowStarting, drpair.ShadowRunning,
		drpair.ShadowFailed, drpair.ShadowCommitting, drpair.ShadowCommitted, drpair.ShadowDeleted,
	} {
		for _, attempt := range attempts {
			runs := attempts[:1]
			if phase == drpair.ShadowFailed { // the only phase in which it is asked what else runs
				runs = attempts
			}
			for _, runs := range runs {
				for _, hasPoint := range []bool{false, true} {
					report := drpair.ShadowReported{
						Epoch: epoch, StoppedEpoch: epoch, Phase: phase, Attempt: attempt, RunningAttempt: runs, HasPoint: hasPoint,
					}
					if phase == drpair.ShadowFailed || phase == drpair.ShadowCommitting {
						report.Failure = &drpair.Failure{Reason: "HYPERVISOR", Side: drpair.SideShadow}
					}
					unstopped, past := report, report
					unstopped.StoppedEpoch--
					past.Epoch--
					events = append(events, report, unstopped)
					if hasPoint {
						events = append(events, past)
					}
				}
			}
		}
	}
	return events
}

// everyStepReport is the shadow host's word on the steps of what runs: on the one that is next, and on the last, which it is not
// at yet.
func everyStepReport(rec drpair.Record) (events []drpair.Event) {
	running := rec.Running()
	if running == nil {
		return nil
	}
	of := []drpair.Step{running.Steps[len(running.Steps)-1]}
	if next := running.Current(); next != nil {
		of = append(of, *next)
	}
	for _, of := range of {
		for _, state := range []drpair.StepState{drpair.StepRunning, drpair.StepDone, drpair.StepSkipped, drpair.StepFailed} {
			for _, phase := range []drpair.ShadowPhase{drpair.ShadowStarting, drpair.ShadowRunning, drpair.ShadowCommitting} {
				events = append(events, drpair.ShadowReported{
					Epoch: rec.Pair.Epoch, StoppedEpoch: rec.Pair.Epoch, Attempt: rec.Pair.LastAttempt, Phase: phase, HasPoint: true,
					Steps: []drpair.Step{{Kind: of.Kind, State: state}},
				})
			}
		}
	}
	return events
}
