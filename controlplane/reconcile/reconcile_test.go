package reconcile_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// replicating is a pair in REPLICATING, with both hosts connected, in the bubble of a test.
func replicating(t *testing.T) (b *bench, m *memory, a, c uint64) {
	t.Helper()
	m = newMemory()
	b = newBench(t, m, m).run(t)
	b.create(t, "p")
	a, c = b.connect("a"), b.connect("b")
	b.main(a, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
	b.shadow(c, 1, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING})
	synctest.Wait()
	if entry, _ := m.Get("p"); entry.Record.Pair.State != drpair.Replicating {
		t.Fatalf("the pair is %+v", entry.Record.Pair)
	}
	return b, m, a, c
}

func stoppedAt(epoch uint64) *umbrav1.ShadowReport {
	return &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED, StoppedEpoch: epoch}
}

func runningAt(epoch, attempt uint64) *umbrav1.ShadowReport {
	return &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, StoppedEpoch: epoch, Attempt: attempt}
}

func pairOf(t *testing.T, m *memory) drpair.Pair {
	t.Helper()
	synctest.Wait()
	entry, ok := m.Get("p")
	if !ok {
		t.Fatal("the pair is gone")
	}
	return entry.Record.Pair
}

func TestAFailoverIsDrivenByReportsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		defer b.stop()
		asked := b.request(t, failover)
		if asked.Pair.State != drpair.FailoverProcessing || asked.Pair.Epoch != 2 {
			t.Fatalf("after the request the pair is %+v", asked.Pair)
		}
		b.shadow(c, 2, stoppedAt(2))
		if p := pairOf(t, m); !p.Stopped || p.Fence.Settled() {
			t.Fatalf("after the stop the pair is %+v", p)
		}
		b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
		if p := pairOf(t, m); p.Fence.State != drpair.FenceConfirmed {
			t.Fatalf("after the fence the pair is %+v", p)
		}
		b.shadow(c, 2, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_STARTING, StoppedEpoch: 2, Attempt: 1, Steps: []*umbrav1.Step{
			{Kind: umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, State: umbrav1.StepState_STEP_STATE_DONE},
		}})
		synctest.Wait()
		if entry, _ := m.Get("p"); entry.Record.Operation.Current().Kind != drpair.StepDefineServer {
			t.Fatalf("the operation is %+v", entry.Record.Operation)
		}
		b.shadow(c, 2, runningAt(2, 1))
		if p := pairOf(t, m); p.State != drpair.FailedOver || p.Active.Number != 1 {
			t.Fatalf("at the end the pair is %+v", p)
		}
		if counted := endsCounted(t, b.engine, "FAILOVER", "SUCCEEDED"); counted != 1 {
			t.Errorf("%d failovers were counted", counted)
		}
	})
}

// endsCounted is how many operations of that kind the engine has seen end in that way.
func endsCounted(t *testing.T, e *reconcile.Engine, kind, outcome string) uint64 {
	t.Helper()
	var shown dto.Metric
	if err := e.Durations().WithLabelValues(kind, outcome).(prometheus.Histogram).Write(&shown); err != nil {
		t.Fatal(err)
	}
	return shown.GetHistogram().GetSampleCount()
}

// All that a host could say arrives while nobody listens: one report holds the stop, the attempt and its end.
func TestMissedReportsAreMadeUpForByTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		b.request(t, failover)
		b.stop()
		b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
		b.shadow(c, 2, runningAt(2, 1))
		b.run(t)
		if p := pairOf(t, m); p.State != drpair.FailedOver {
			t.Fatalf("the pair is %+v", p)
		}
		b.stop()
	})
}

func TestNothingIsWrittenWhenNothingIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		before := m.writes()
		for range 50 {
			b.main(a, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
			b.shadow(c, 1, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING})
			m.feed.Publish("p", "no such pair")
			time.Sleep(10 * time.Second)
		}
		b.stop()
		b.run(t)
		synctest.Wait()
		if after := m.writes(); after != before {
			t.Errorf("%d writes though nothing was new", after-before)
		}
		b.stop()
	})
}

// The word of the pair's hosts contradicts itself: they keep saying it, and it is written once.
func TestHostsThatContradictOneAnotherDoNotMakeTheEvaluationLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		b.shadow(c, 1, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING})
		b.hosts.SetReport("b", c, &umbrav1.AssignmentReport{DrPair: "p", Epoch: 1, Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{}}}, time.Now())
		synctest.Wait()
		before := m.writes()
		for range 20 {
			b.main(a, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
			time.Sleep(time.Second)
		}
		if after := m.writes(); after != before {
			t.Errorf("%d writes for the same contradiction", after-before)
		}
		b.stop()
	})
}

func TestReportsOfAnEarlierSessionAreNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		b := newBench(t, m, m)
		b.create(t, "p")
		old := b.connect("a")
		b.main(old, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
		b.connect("a") // at the same instant
		b.run(t)
		if p := pairOf(t, m); p.State != drpair.InitialSync {
			t.Errorf("a report of the session before was applied: %s", p.State)
		}
		b.main(old, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
		if p := pairOf(t, m); p.State != drpair.InitialSync {
			t.Errorf("a late report of the session before was applied: %s", p.State)
		}
		b.stop()
	})
}

func TestReportsOfAnotherHostOrOfAnEarlierPairOfThatNameAreNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		b := newBench(t, m, m).run(t)
		b.create(t, "p")
		a := b.connect("a")
		other := b.connect("z")
		report := &umbrav1.AssignmentReport{DrPair: "p", Epoch: 1, Role: &umbrav1.AssignmentReport_Main{
			Main: &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_REPLICATING, ResyncGeneration: 1},
		}}
		b.hosts.SetReport("z", other, report, time.Now())
		if p := pairOf(t, m); p.State != drpair.InitialSync {
			t.Errorf("a report of a host that is not the pair's was applied: %s", p.State)
		}
		report.Generation = 17
		b.hosts.SetReport("a", a, report, time.Now())
		if p := pairOf(t, m); p.State != drpair.InitialSync {
			t.Errorf("a report of a generation that is yet to come was applied: %s", p.State)
		}
		b.stop()
	})
}

func TestAMainHostIsCalledUnreachableAfterTheGraceAndNotBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _, _ := replicating(t)
		b.leave(m, "a")
		time.Sleep(grace - time.Second)
		if p := pairOf(t, m); p.State != drpair.Replicating {
			t.Fatalf("before the grace is over the pair is %s", p.State)
		}
		time.Sleep(2 * time.Second)
		p := pairOf(t, m)
		if p.State != drpair.ReplicationError || p.Failure.Reason != drpair.ReasonMainUnreachable {
			t.Fatalf("after it the pair is %s, %+v", p.State, p.Failure)
		}
		again := b.connect("a")
		b.main(again, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
		if p := pairOf(t, m); p.State != drpair.Replicating || p.Failure != nil {
			t.Errorf("when it is back the pair is %s, %+v", p.State, p.Failure)
		}
		b.stop()
	})
}

func TestARestartGivesHostsTheWholeGraceToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _, _ := replicating(t)
		b.stop()
		time.Sleep(time.Hour)
		m.session("a", false) // it was under the lease of the life before
		m.session("b", false)
		b = newBench(t, m, m).run(t)
		time.Sleep(grace - time.Second)
		if p := pairOf(t, m); p.State != drpair.Replicating {
			t.Errorf("a restart of the control plane made the pair %s", p.State)
		}
		time.Sleep(2 * time.Second)
		if p := pairOf(t, m); p.State != drpair.ReplicationError {
			t.Errorf("a host that does not come back leaves the pair %s", p.State)
		}
		b.stop()
	})
}

func TestAFenceThatIsNotConfirmedInTimeIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		b.request(t, failover)
		b.shadow(c, 2, stoppedAt(2))
		b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_REPLICATING) // it has heard, and is at it
		synctest.Wait()
		began, limit := time.Now(), drpair.DefaultPolicy().FenceTimeout
		time.Sleep(limit - time.Second)
		if p := pairOf(t, m); p.Fence.Settled() {
			t.Fatalf("after %v the fence is %+v", time.Since(began), p.Fence)
		}
		time.Sleep(2 * time.Second)
		if p := pairOf(t, m); p.Fence.State != drpair.FenceUnconfirmed || p.State != drpair.FailoverProcessing {
			t.Fatalf("after %v the fence is %+v", time.Since(began), p.Fence)
		}
		b.shadow(c, 2, runningAt(2, 1))
		if p := pairOf(t, m); p.State != drpair.FailedOver {
			t.Errorf("at the end the pair is %s", p.State)
		}
		b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
		if p := pairOf(t, m); p.Fence.State != drpair.FenceConfirmed {
			t.Errorf("when the main host confirms later the fence is %+v", p.Fence)
		}
		b.stop()
	})
}

func TestAStepThatTakesTooLongEndsTheFailoverInError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		b.request(t, failover)
		b.shadow(c, 2, stoppedAt(2))
		b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
		until(t, m, "p", inState(drpair.FailoverError))
		p := pairOf(t, m)
		if p.Failure.Reason != drpair.ReasonDeadline || p.Failure.Step != drpair.StepPrepareDisks || p.Failure.Side != drpair.SideShadow {
			t.Errorf("the failure is %+v", p.Failure)
		}
		before := m.writes()
		time.Sleep(time.Hour)
		if after := m.writes(); after != before {
			t.Errorf("%d writes after the end", after-before)
		}
		if again := b.request(t, failover); again.Pair.State != drpair.FailoverProcessing || again.Pair.Wanted.Number != 2 {
			t.Errorf("failing over again makes %+v", again.Pair)
		}
		b.stop()
	})
}

func TestAShadowHostThatIsAwayEndsTheFailoverInErrorAndIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _, _ := replicating(t)
		b.leave(m, "b")
		b.request(t, failover)
		until(t, m, "p", inState(drpair.FailoverError))
		if p := pairOf(t, m); p.Failure.Reason != drpair.ReasonShadowUnreachable || p.Failure.Step != drpair.StepStopReplication {
			t.Errorf("the failure is %+v", p.Failure)
		}
		b.stop()
	})
}

func TestAPairThatIsGoneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, _ := replicating(t)
		b.request(t, func(id string) drpair.Event {
			return drpair.Delete{Request: drpair.Request{OperationID: id}, Force: true}
		})
		synctest.Wait()
		if _, ok := b.hosts.Main("p"); ok {
			t.Error("the reports of a pair that is gone are kept")
		}
		b.main(a, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
		synctest.Wait()
		if _, ok := b.hosts.Main("p"); ok || len(m.List()) > 0 {
			t.Error("a late report of a pair that is gone is kept")
		}
		b.stop()
	})
}

func TestARequestOnAnotherEtagIsRefused(t *testing.T) {
	m := newMemory()
	b := newBench(t, m, m)
	rec := b.create(t, "p")
	pause := func(string) drpair.Event { return drpair.Pause{} }
	ask := func(etag string) error {
		_, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", ETag: etag, Event: pause})
		return err
	}
	if err := ask(`"uid-p-7"`); !errors.Is(err, reconcile.ErrETag) {
		t.Errorf("a wrong etag: %v", err)
	}
	if err := ask(store.ETag(rec.Pair)); err != nil {
		t.Errorf("the right etag: %v", err)
	}
	if err := ask(store.ETag(rec.Pair)); !errors.Is(err, reconcile.ErrETag) {
		t.Errorf("an etag that was right before: %v", err)
	}
	if _, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "none", Event: pause}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown pair: %v", err)
	}
	var refused *drpair.NotAllowedError
	if _, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", Event: commit}); !errors.As(err, &refused) {
		t.Errorf("a request that the state does not allow: %v", err)
	}
}

// The second arrival looks its key up before the first has been carried out, and reads the pair after it.
func TestARepeatedRequestIsNotRefusedBecauseOfItself(t *testing.T) {
	m := newMemory()
	b := newBench(t, m, m)
	b.create(t, "p")
	late := &lookupFirst{memory: m}
	second := newBench(t, late, m)
	req := reconcile.Request{Pair: "p", Key: key("r"), Event: func(string) drpair.Event { return drpair.Pause{} }}
	late.then = func() {
		if _, err := b.engine.Request(t.Context(), req); err != nil {
			t.Error(err)
		}
	}
	rec, err := second.engine.Request(t.Context(), req)
	if err != nil || !rec.Pair.Paused || rec.Pair.Generation != 2 {
		t.Errorf("the repeated request got %+v, %v", rec.Pair, err)
	}
}

func TestAReportOfAnEarlierPairOfTheSameIdIsNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		b := newBench(t, m, m).run(t)
		defer b.stop()
		b.create(t, "p")
		report := &umbrav1.AssignmentReport{
			DrPair: "p", DrPairUid: "an earlier one", Epoch: 1, Generation: 1, Role: &umbrav1.AssignmentReport_Main{
				Main: &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_REPLICATING, ResyncGeneration: 1},
			},
		}
		b.hosts.SetReport("a", b.connect("a"), report, time.Now())
		if p := pairOf(t, m); p.State != drpair.InitialSync {
			t.Errorf("it was applied: %s", p.State)
		}
		again := proto.CloneOf(report)
		again.DrPairUid = "uid-p"
		b.hosts.SetReport("a", b.connect("a"), again, time.Now())
		if p := pairOf(t, m); p.State != drpair.Replicating {
			t.Errorf("the pair's own was not: %s", p.State)
		}
	})
}
