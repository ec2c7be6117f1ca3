package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// counts are what a world has been through.
type counts struct {
	cycles, points, pairs int
	requests, faults      map[string]int
	states                map[string]int
}

func (c *counts) add(other counts) {
	c.cycles += other.cycles
	c.points += other.points
	c.pairs += other.pairs
	for _, m := range []struct{ to, from *map[string]int }{{&c.requests, &other.requests}, {&c.faults, &other.faults}, {&c.states, &other.states}} {
		if *m.to == nil {
			*m.to = map[string]int{}
		}
		for k, n := range *m.from {
			(*m.to)[k] += n
		}
	}
}

func count(m *map[string]int, what string) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[what]++
}

// plan is what one cycle does, drawn from the seed alone but for what the pair allows.
type plan struct {
	requests []request // sent side by side, each as often as copies says
	copies   int
	faults   []fault
	delays   []time.Duration // before each fault and before the end of all, of the world's time
	ahead    bool            // faults first, then requests
}

func (w *world) plan(r *rand.Rand, pair *umbrav1.DRPair, points []*umbrav1.RecoveryPoint) plan {
	p := plan{copies: 1 + r.IntN(3), ahead: r.IntN(2) == 0}
	for range r.IntN(3) {
		p.faults = append(p.faults, faults[r.IntN(len(faults))])
	}
	for range len(p.faults) + 1 {
		p.delays = append(p.delays, time.Duration(r.Int64N(int64(3*time.Second))))
	}
	if p.ahead { // what is broken stays so while the request is carried out
		p.delays[len(p.faults)] *= 5
	}
	allowed := slices.DeleteFunc(slices.Clone(pair.GetAllowedActions()), func(a umbrav1.DRPairAction) bool { return a == actUpdate })
	if len(allowed) == 0 || r.IntN(4) == 0 {
		return p
	}
	for range 1 + r.IntN(5)/4 {
		action := allowed[r.IntN(len(allowed))]
		if action == actDelete && r.IntN(4) != 0 {
			action = allowed[0]
		}
		p.requests = append(p.requests, w.draw(r, action, points))
	}
	return p
}

func (p plan) String() string {
	var parts []string
	for _, q := range p.requests {
		parts = append(parts, fmt.Sprintf("%dx %s %s points %v id %s", p.copies, strings.TrimPrefix(q.action.String(), "DR_PAIR_ACTION_"), baseName(q.point), q.points, q.id))
	}
	for i, f := range p.faults {
		parts = append(parts, fmt.Sprintf("after %v %s", p.delays[i].Round(time.Millisecond), f.name))
	}
	return strings.Join(parts, "; ")
}

// cycle is one round: requests and faults at once, then all is healed, the pair comes to rest, and the promises are checked.
func (w *world) cycle(ctx context.Context, number int) error {
	ctx, stop := context.WithTimeoutCause(ctx, patience, errors.New("it takes too long"))
	defer stop()
	r := rand.New(rand.NewPCG(w.seed, uint64(number)))
	if w.subject == nil {
		if err := w.protect(ctx, r); err != nil {
			return err
		}
		if r.IntN(4) != 0 { // otherwise the initial sync goes on while things break
			if _, err := w.settle(ctx, w.subject.history.version()); err != nil {
				return fmt.Errorf("first sync: %w", err)
			}
		}
		w.counts.pairs++
	}
	pair, err := w.pair(ctx, observer)
	if err != nil {
		return err
	}
	points, err := w.points(ctx)
	if err != nil && !isRefusal(errors.Unwrap(err)) {
		return err
	}
	p := w.plan(r, pair, points)
	w.log.Info("CYCLE", "number", number, "state", pair.GetState().String(), "plan", p.String())
	answers, err := w.play(ctx, r, p)
	if err != nil {
		return fmt.Errorf("in %s: %s: %w", pair.GetState(), p, err)
	}
	for _, f := range p.faults {
		count(&w.counts.faults, f.name)
	}
	if err := w.judge(ctx, pair, p, answers); err != nil {
		return fmt.Errorf("in %s: %s: %w", pair.GetState(), p, err)
	}
	w.counts.cycles++
	return nil
}

// play does what the plan says, heals, and returns each request's answers.
func (w *world) play(ctx context.Context, r *rand.Rand, p plan) ([][]answer, error) {
	answers := make([][]answer, len(p.requests))
	for i := range answers {
		answers[i] = make([]answer, p.copies)
	}
	ending := w.fenceWith(p)
	writes := make([]diskWrite, r.IntN(12))
	for i := range writes {
		writes[i] = randomWrite(r)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	var failed error
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = errors.Join(failed, err)
	}
	work.Go(func() {
		for _, one := range writes {
			w.main.machine.guestWrites(ctx, w.subject.server, one)
			_ = w.clock.Wait(ctx, 100*time.Millisecond)
		}
	})
	breakThings := func() {
		for i, f := range p.faults {
			_ = w.clock.Wait(ctx, p.delays[i])
			w.log.Info("FAULT", "name", f.name)
			if err := f.act(ctx, w, r); err != nil && ctx.Err() == nil {
				w.log.Info("fault has no object", "name", f.name, "error", err)
			}
		}
		_ = w.clock.Wait(ctx, p.delays[len(p.faults)])
		w.log.Info("HEAL")
		w.heal()
		w.endForeign(ctx)
		if err := w.revive(); err != nil {
			fail(err)
		}
	}
	sending := func() {
		for i, q := range p.requests {
			for j := range p.copies {
				work.Go(func() {
					a, err := w.ask(ctx, 1+i*3+j, q)
					if err != nil {
						fail(err)
					}
					answers[i][j] = a
				})
			}
		}
	}
	if !p.ahead {
		sending()
		breakThings()
	} else {
		broken := make(chan struct{})
		work.Go(func() {
			defer close(broken)
			breakThings()
		})
		_ = w.clock.Wait(ctx, p.delays[0])
		sending()
		<-broken
	}
	if ending {
		w.fenceOnceStopped(ctx)
	}
	work.Wait()
	return answers, failed
}

func (w *world) endForeign(ctx context.Context) {
	_ = w.main.machine.EndForeignBackup(ctx, w.subject.server) // a server that is gone has none
}

// settle waits until the pair is at rest: nothing runs, and if it replicates, its newest point holds at least that version. It is nil
// when the pair is gone.
func (w *world) settle(ctx context.Context, version int) (*umbrav1.DRPair, error) {
	for {
		pair, err := w.pair(ctx, observer)
		if pair == nil || err != nil {
			return nil, err
		}
		w.power(ctx, pair)
		resting, err := w.resting(ctx, pair, version)
		if err != nil || resting {
			return pair, err
		}
		if rest(ctx) != nil {
			return nil, fmt.Errorf("the pair does not come to rest: state %s, operation %s, failure %v, conditions %v",
				pair.GetState(), pair.GetCurrentOperation(), pair.GetFailure(), pair.GetConditions())
		}
	}
}

// power is what a server's user does: one that should work and is off is started.
func (w *world) power(ctx context.Context, pair *umbrav1.DRPair) {
	switch pair.GetState() {
	case umbrav1.DRPairState_DR_PAIR_STATE_RESYNCING, umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING,
		umbrav1.DRPairState_DR_PAIR_STATE_INITIAL_SYNC, umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_ERROR:
		_ = w.main.machine.Start(ctx, w.subject.server)
	case umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER, umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED: // a commit starts it itself
		_ = w.shadow.machine.Start(ctx, "shadow-"+w.subject.server)
	}
}

func (w *world) resting(ctx context.Context, pair *umbrav1.DRPair, version int) (bool, error) {
	switch pair.GetState() {
	case umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING:
		points, err := w.points(ctx)
		if err != nil || len(points) == 0 {
			return false, err
		}
		at, known := w.subject.history.moment(points[0].GetCheckpoint())
		return known && at >= version, nil
	case umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED:
		return slices.Contains(pair.GetAllowedActions(), actResume), nil
	case umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR, umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER,
		umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED:
		return true, nil
	default:
		return false, nil
	}
}
