package reconcile_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// lookupFirst does something between the first look for a request and what follows.
type lookupFirst struct {
	*memory
	then func()
	once sync.Once
}

func (l *lookupFirst) Request(ctx context.Context, key store.RequestKey) (store.RequestRecord, bool, error) {
	record, found, err := l.memory.Request(ctx, key)
	l.once.Do(l.then)
	return record, found, err
}

func onEtcd(t *testing.T) (*store.Store, *store.Cache) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	client, stop, err := embedded.Start(t.Context(), t.TempDir(), log)
	if err != nil {
		t.Fatal(err)
	}
	s := store.New(client, log)
	cache := store.NewCache(s, clock.System, log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cache.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	<-cache.Ready()
	return s, cache
}

// Callers that repeat one another at the same moment, while others keep changing the pair.
func TestARequestTakesEffectOnceHoweverOftenItArrives(t *testing.T) {
	s, cache := onEtcd(t)
	b := newBench(t, s, cache)
	rec := newRecord("p")
	rec.Pair.HasPoint = true
	if _, err := b.engine.Create(t.Context(), rec, key("create")); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	operations := make([]string, 8)
	for i := range operations {
		all.Go(func() {
			got, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", Key: key("failover"), Event: failover})
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
				return
			}
			operations[i] = got.Operation.ID
		})
		all.Go(func() {
			policy := drpair.DefaultPolicy()
			policy.Interval = time.Duration(i+1) * time.Minute
			_, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", Event: func(string) drpair.Event { return drpair.UpdatePolicy{Policy: policy} }})
			var refused *drpair.NotAllowedError
			if err != nil && !errors.As(err, &refused) && !errors.Is(err, store.ErrConflict) {
				t.Errorf("update %d: %v", i, err)
			}
		})
		all.Go(func() {
			if again, err := b.engine.Create(t.Context(), rec, key("create")); err != nil || again.Pair.UID != rec.Pair.UID {
				t.Errorf("creating again: %v", err)
			}
		})
	}
	all.Wait()
	if operations = slices.Compact(operations); len(operations) != 1 {
		t.Errorf("one request made the operations %v", operations)
	}
	entry, err := s.Pair(t.Context(), "p")
	if err != nil || entry.Record.Pair.Epoch != 2 || entry.Record.Pair.LastAttempt != 1 {
		t.Errorf("the pair is %+v, %v", entry.Record.Pair, err)
	}
	other := key("failover")
	other.Fingerprint[0] = 1
	var reused *store.RequestReusedError
	if _, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", Key: other, Event: failover}); !errors.As(err, &reused) {
		t.Errorf("another request with the same id: %v", err)
	}
}

func TestAFailoverOnEtcdWritesOncePerStep(t *testing.T) {
	s, cache := onEtcd(t)
	b := newBench(t, s, cache).run(t)
	b.create(t, "p")
	a, c := b.connect("a"), b.connect("b")
	b.main(a, 1, umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
	until(t, cache, "p", inState(drpair.Replicating))
	b.request(t, failover)
	b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
	b.shadow(c, 2, runningAt(2, 1))
	rec := until(t, cache, "p", inState(drpair.FailedOver))
	// created, replicating, request, stopped, fenced, failed over
	if rec.Pair.Generation != 6 {
		t.Errorf("the failover took the pair to generation %d", rec.Pair.Generation)
	}
}

// Random requests and reports arrive at once. Then both hosts do what they are assigned, and say so: every pair
// settles, nothing that was accepted is lost, and the last word stays the last.
func TestWhateverArrivesAtOnceEverythingSettles(t *testing.T) {
	s, cache := onEtcd(t)
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		id := fmt.Sprintf("p-%d", run)
		b := newBench(t, s, cache).run(t)
		defer b.stop()
		b.create(t, id)
		a, c := b.connect("a"), b.connect("b")
		events := []func(string) drpair.Event{
			failover, commit,
			func(op string) drpair.Event {
				return drpair.RestartReplication{Request: drpair.Request{OperationID: op}}
			},
			func(op string) drpair.Event {
				return drpair.ChangeRecoveryPoint{Request: drpair.Request{OperationID: op}, Point: "rp-2"}
			},
			func(string) drpair.Event { return drpair.Pause{} },
			func(string) drpair.Event { return drpair.Resume{} },
			func(string) drpair.Event { return drpair.UpdatePolicy{Policy: drpair.DefaultPolicy()} },
		}
		callers := make([][]int, rapid.IntRange(1, 3).Draw(r, "callers"))
		for i := range callers {
			callers[i] = rapid.SliceOfN(rapid.IntRange(0, len(events)-1), 1, 6).Draw(r, "requests")
		}
		noise := rapid.SliceOfN(rapid.IntRange(0, 1000), 0, 40).Draw(r, "reports")

		var all sync.WaitGroup
		var mu sync.Mutex
		accepted := uint64(0)
		for _, requests := range callers {
			all.Go(func() {
				for _, at := range requests {
					_, err := b.engine.Request(t.Context(), reconcile.Request{Pair: id, Event: events[at]})
					var refused *drpair.NotAllowedError
					if err == nil {
						mu.Lock()
						accepted++
						mu.Unlock()
					} else if !errors.As(err, &refused) {
						t.Errorf("a request: %v", err)
					}
				}
			})
		}
		all.Go(func() {
			for _, n := range noise {
				b.report(id, a, c, uint64(1+n%4), umbrav1.MainPhase(n%8), umbrav1.ShadowPhase(n%9), uint64(n%3))
			}
		})
		all.Wait()
		settled := b.settle(t, cache, id, a, c)
		if settled.Generation < 1+accepted {
			r.Fatalf("%d requests were accepted and the pair is at generation %d", accepted, settled.Generation)
		}
		if len(drpair.Allowed(settled)) == 0 {
			r.Fatalf("nothing is allowed in %s", settled.State)
		}
		if _, err := b.engine.Request(t.Context(), reconcile.Request{Pair: id, Event: func(op string) drpair.Event {
			return drpair.Delete{Request: drpair.Request{OperationID: op}, Force: true}
		}}); err != nil && settled.State != drpair.FailedOver {
			r.Fatalf("deleting a pair in %s: %v", settled.State, err)
		}
	})
}

func (b *bench) report(pair string, a, c, epoch uint64, main umbrav1.MainPhase, shadow umbrav1.ShadowPhase, attempt uint64) {
	b.hosts.SetReport("a", a, &umbrav1.AssignmentReport{DrPair: pair, Epoch: epoch, Role: &umbrav1.AssignmentReport_Main{
		Main: &umbrav1.MainReport{Phase: main, ResyncGeneration: 1 + attempt},
	}}, time.Now())
	b.hosts.SetReport("b", c, &umbrav1.AssignmentReport{DrPair: pair, Epoch: epoch, Role: &umbrav1.AssignmentReport_Shadow{
		Shadow: &umbrav1.ShadowReport{Phase: shadow, StoppedEpoch: epoch, Attempt: attempt, RunningAttempt: attempt, RecoveryPointCount: int64(attempt)},
	}}, time.Now())
}

// settle lets both hosts do what the record asks until no operation runs and their word has been taken.
func (b *bench) settle(t *testing.T, cache *store.Cache, id string, a, c uint64) drpair.Pair {
	t.Helper()
	mains := map[drpair.MainMode]umbrav1.MainPhase{
		drpair.MainReplicate: umbrav1.MainPhase_MAIN_PHASE_REPLICATING, drpair.MainPause: umbrav1.MainPhase_MAIN_PHASE_PAUSED,
		drpair.MainFence: umbrav1.MainPhase_MAIN_PHASE_FENCED,
	}
	shadows := map[drpair.ShadowMode]umbrav1.ShadowPhase{
		drpair.ShadowReceive: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING, drpair.ShadowStop: umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED,
		drpair.ShadowRun: umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, drpair.ShadowCommit: umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED,
	}
	rec := until(t, cache, id, func(rec drpair.Record, ok bool) bool {
		if !ok {
			return false
		}
		p := rec.Pair
		mode, attempt := drpair.DesiredShadow(p)
		shadow := &umbrav1.ShadowReport{Phase: shadows[mode], RecoveryPointCount: 3}
		if mode != drpair.ShadowReceive {
			shadow.StoppedEpoch = p.Epoch
		}
		if attempt != nil {
			shadow.Attempt, shadow.RunningAttempt = attempt.Number, attempt.Number
		}
		b.hosts.SetReport("a", a, &umbrav1.AssignmentReport{DrPair: id, Epoch: p.Epoch, Role: &umbrav1.AssignmentReport_Main{
			Main: &umbrav1.MainReport{Phase: mains[drpair.DesiredMain(p)], ResyncGeneration: p.ResyncGeneration},
		}}, time.Now())
		b.hosts.SetReport("b", c, &umbrav1.AssignmentReport{DrPair: id, Epoch: p.Epoch, Role: &umbrav1.AssignmentReport_Shadow{Shadow: shadow}}, time.Now())
		// A resync that was paused goes on with the resume; everything else has an end by itself.
		calm := p.Paused || rec.Running() == nil && (p.State == drpair.Replicating || p.State == drpair.FailoverError ||
			p.State == drpair.FailedOver || p.State == drpair.Committed)
		if !calm {
			return false
		}
		stored, err := b.engine.Store.Pair(t.Context(), id)
		return err == nil && stored.Record.Pair.Generation == p.Generation // otherwise the cache is about to say more
	})
	return rec.Pair
}
