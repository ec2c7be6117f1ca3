package reconcile_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestAnEvaluationThatLosesARaceKeepsWhatTheOtherWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		b := newBench(t, m, m).run(t)
		b.create(t, "p")
		a := b.connect("a")
		policy := drpair.DefaultPolicy()
		policy.Interval = 77 * time.Second
		var raced atomic.Bool
		m.before = func(store.Entry) {
			if raced.Swap(true) {
				return
			}
			_, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", Event: func(string) drpair.Event {
				return drpair.UpdatePolicy{Policy: policy}
			}})
			if err != nil {
				t.Error(err)
			}
		}
		b.main(a, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
		if p := pairOf(t, m); p.State != drpair.Replicating || p.Policy.Interval != policy.Interval {
			t.Errorf("the pair is %s with interval %v", p.State, p.Policy.Interval)
		}
		b.stop()
	})
}

// Far more pairs have news at once than one round takes.
func TestManyPairsAtOnceAreAllEvaluated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const pairs = 3000
		m := newMemory()
		b := newBench(t, m, m)
		for i := range pairs {
			rec := newRecord(fmt.Sprint("p", i))
			if _, err := b.engine.Create(t.Context(), rec, store.RequestKey{}); err != nil {
				t.Fatal(err)
			}
		}
		b.run(t)
		time.Sleep(grace + time.Second)
		synctest.Wait()
		for _, entry := range m.List() {
			if entry.Record.Pair.State != drpair.ReplicationError {
				t.Fatalf("pair %s is %s", entry.Record.Pair.ID, entry.Record.Pair.State)
			}
		}
		b.stop()
	})
}
