package replicate

import (
	"context"
	"sync"

	"golang.org/x/time/rate"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// team is the workers of a host. Only Run's goroutine uses it.
type team struct {
	replicator *Replicator
	members    map[string]*member
	working    sync.WaitGroup
}

// member is a worker that runs, or that is ending.
type member struct {
	worker *worker
	stop   context.CancelFunc
	let    bool          // it was let go
	done   chan struct{} // closed when it has ended
}

// assign hands every worker its newest assignment, begins those that are new and lets go of those that are not in the set.
func (t *team) assign(ctx context.Context, set []*umbrav1.Assignment) {
	wanted := make(map[string]bool, len(set))
	for _, a := range set {
		pair := a.GetDrPair()
		wanted[pair] = true
		if m := t.members[pair]; m != nil && !m.let {
			m.worker.assign(a)
			continue
		}
		t.begin(ctx, a)
	}
	for pair, m := range t.members {
		if !wanted[pair] && !m.let {
			m.stop()
			m.let = true
			t.replicator.shared.figures.forget(pair)
		}
		if m.let && m.ended() {
			delete(t.members, pair)
		}
	}
}

func (m *member) ended() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

// begin starts a worker. If one that was let go is still ending, the new one waits for it.
func (t *team) begin(ctx context.Context, a *umbrav1.Assignment) {
	pair := a.GetDrPair()
	var earlier <-chan struct{}
	if m := t.members[pair]; m != nil {
		earlier = m.done
	}
	cfg := t.replicator.cfg
	w := &worker{
		cfg: cfg, pair: pair, shared: t.replicator.shared, desired: newDesired(a),
		status:  &status{clock: cfg.Clock, report: cfg.Report},
		limiter: rate.NewLimiter(limit(a), limitBurstBytes), traffic: t.replicator.shared.figures.of(pair),
	}
	w.log = telemetry.AboutPair(cfg.Log, pair, func() telemetry.Subject {
		newest := w.desired.current()
		return telemetry.Subject{Epoch: newest.GetEpoch(), Operation: newest.GetOperation(), TraceID: tracing.TraceID(newest.GetTraceParent())}
	})
	ctx, stop := context.WithCancel(ctx)
	m := &member{worker: w, stop: stop, done: make(chan struct{})}
	t.members[pair] = m
	w.status.announce(a)
	t.working.Go(func() {
		defer close(m.done)
		defer stop()
		w.run(ctx, earlier)
	})
}

// assign gives a worker a newer assignment.
func (w *worker) assign(a *umbrav1.Assignment) {
	taken, goesOn := w.desired.set(a)
	if !taken {
		w.log.Warn("an assignment of a lower generation is ignored", "generation", a.GetGeneration())
		return
	}
	w.limiter.SetLimit(limit(a))
	if goesOn {
		w.status.takeUp(a)
		return
	}
	w.status.announce(a)
}
