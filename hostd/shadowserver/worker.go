package shadowserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// errSuperseded ends the work on an assignment when another one asks for something else. It leaves everything as a
// crash would, and the new assignment converges from there.
var errSuperseded = errors.New("a newer assignment asks for something else")

// worker does everything for one pair, in one goroutine, beside one that publishes what it shows.
type worker struct {
	cfg  *Config
	pair string
	dir  string // of the pair's servers
	log  *slog.Logger
	// about is what is in hand, for the log.
	about atomic.Pointer[umbrav1.Assignment]

	ctx    context.Context // ends when the pair is forgotten or the role ends
	forget context.CancelFunc
	done   chan struct{}

	forgotten bool // guarded by the role's mutex

	wake    chan struct{} // a newer assignment is there
	news    chan struct{} // the replica's status has changed
	publish chan struct{} // what is shown has changed

	mu       sync.Mutex
	newest   *umbrav1.Assignment
	inHand   *umbrav1.Assignment
	endWork  context.CancelCauseFunc // of what is in hand
	reported shown

	// The rest belongs to the worker's goroutine.
	rec            record
	readinessAt    time.Time
	readinessPoint bool
}

func newWorker(ctx context.Context, cfg *Config, pair string, a *umbrav1.Assignment) *worker {
	w := &worker{
		cfg:     cfg,
		pair:    pair,
		dir:     filepath.Join(cfg.ServersDir, pair),
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		publish: make(chan struct{}, 1),
		newest:  a,
	}
	w.log = telemetry.AboutPair(cfg.Log, pair, func() telemetry.Subject {
		a := w.about.Load()
		return telemetry.Subject{Epoch: a.GetEpoch(), Operation: a.GetOperation(), TraceID: tracing.TraceID(a.GetTraceParent())}
	})
	w.about.Store(a)
	w.reported.uid, w.reported.report = a.GetDrPairUid(), &umbrav1.ShadowReport{}
	ctx, cancel := context.WithCancel(telemetry.For(ctx, w.log))
	w.ctx = ctx
	w.forget = func() { w.forgotten = true; cancel() }
	return w
}

// plainName tells whether a name can be one element of a path.
func plainName(name string) bool {
	return name != "" && name == filepath.Base(name) && filepath.IsLocal(name) && name != "."
}

// assign takes an assignment, unless a newer one of the same pair is known. What is being done for the last one is ended only if the
// new one asks for something else.
func (w *worker) assign(a *umbrav1.Assignment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.GetGeneration() < w.newest.GetGeneration() && !journal.OtherPair(w.newest.GetDrPairUid(), a.GetDrPairUid()) {
		return
	}
	w.newest = a
	if w.endWork != nil && !sameWork(w.inHand, a) {
		w.endWork(errSuperseded)
	}
	wake(w.wake)
}

// sameWork tells whether the work that goes on for one assignment also serves the other.
func sameWork(a, b *umbrav1.Assignment) bool {
	x, y := a.GetShadow(), b.GetShadow()
	switch x.GetMode() {
	case umbrav1.ShadowMode_SHADOW_MODE_RUN, umbrav1.ShadowMode_SHADOW_MODE_COMMIT, umbrav1.ShadowMode_SHADOW_MODE_DELETE:
	default:
		return false
	}
	return a.GetDrPairUid() == b.GetDrPairUid() && x.GetMode() == y.GetMode() && a.GetEpoch() == b.GetEpoch() && x.GetServer() == y.GetServer() &&
		x.GetAttempt().GetNumber() == y.GetAttempt().GetNumber()
}

func (w *worker) takeUp() (*umbrav1.Assignment, context.Context, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithCancelCause(w.ctx)
	w.inHand, w.endWork = w.newest, cancel
	w.about.Store(w.newest)
	return w.newest, ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.endWork = nil
		cancel(nil)
	}
}

// run works until the worker's context ends.
func (w *worker) run() {
	var publisher sync.WaitGroup
	defer publisher.Wait()
	publisher.Go(w.publishOnChange)

	pause := &backoff.ExponentialBackOff{InitialInterval: retryMin, Multiplier: 2, RandomizationFactor: 0.1, MaxInterval: retryMax}
	pause.Reset()
	loaded := false
	var settled *umbrav1.Assignment
	for w.ctx.Err() == nil {
		a, ctx, end := w.takeUp()
		err := w.load(&loaded)
		if err == nil && a == settled {
			w.observe(ctx, a)
		} else if err == nil {
			err = w.converge(ctx, a)
		}
		superseded := errors.Is(context.Cause(ctx), errSuperseded)
		end()
		switch {
		case err == nil:
			settled = a
			pause.Reset()
			w.idle(beatInterval, w.news)
		case superseded || w.ctx.Err() != nil:
			pause.Reset()
		default:
			settled = nil
			w.log.Warn("the shadow assignment could not be followed; trying again", "mode", a.GetShadow().GetMode().String(), "error", err)
			w.showTrouble(err)
			w.idle(pause.NextBackOff(), nil)
		}
	}
}

// idle waits for d, for a newer assignment, or for news.
func (w *worker) idle(d time.Duration, news <-chan struct{}) {
	tick := w.cfg.Clock.NewTicker(max(d, time.Millisecond))
	defer tick.Stop()
	select {
	case <-w.ctx.Done():
	case <-w.wake:
	case <-news:
	case <-tick.C:
	}
}

// converge makes the host be what the assignment says. nil means that it is, or that an attempt's failure has been
// recorded and shown, which only another assignment can change. Any other error is tried again.
func (w *worker) converge(ctx context.Context, a *umbrav1.Assignment) error {
	if journal.OtherPair(w.rec.UID, a.GetDrPairUid()) {
		w.showAssignment(a)
		w.log.Warn("what is left of an earlier pair of this id is removed", "earlier_uid", w.rec.UID, "uid", a.GetDrPairUid())
		if err := w.clear(ctx); err != nil {
			return fmt.Errorf("removing what is left of an earlier pair of this id: %w", err)
		}
	}
	if a.GetGeneration() < w.rec.Generation {
		w.log.Warn("an assignment older than one already followed is ignored", "generation", a.GetGeneration(), "newest", w.rec.Generation)
		return nil
	}
	uid := cmp.Or(a.GetDrPairUid(), w.rec.UID)
	if (a.GetGeneration() > w.rec.Generation || uid != w.rec.UID) && a.GetShadow().GetMode() != umbrav1.ShadowMode_SHADOW_MODE_DELETE {
		if err := w.save(func(r *record) { r.Generation, r.UID = a.GetGeneration(), uid }); err != nil {
			return err
		}
	}
	w.showAssignment(a)
	switch mode := a.GetShadow().GetMode(); mode {
	case umbrav1.ShadowMode_SHADOW_MODE_RECEIVE:
		return w.receive(ctx, a)
	case umbrav1.ShadowMode_SHADOW_MODE_STOP:
		return w.stop(ctx, a)
	case umbrav1.ShadowMode_SHADOW_MODE_RUN:
		return w.runServer(ctx, a)
	case umbrav1.ShadowMode_SHADOW_MODE_COMMIT:
		return w.commit(ctx, a)
	case umbrav1.ShadowMode_SHADOW_MODE_DELETE:
		return w.delete(ctx)
	default:
		return fmt.Errorf("shadow mode %s is not known to this version of hostd", mode)
	}
}

// observe refreshes what is shown of a settled pair.
func (w *worker) observe(ctx context.Context, a *umbrav1.Assignment) {
	if a.GetShadow().GetMode() == umbrav1.ShadowMode_SHADOW_MODE_RECEIVE {
		w.checkReadiness(ctx, a)
	}
	power := w.serverPower(ctx)
	w.show(func(r *umbrav1.ShadowReport) { r.ServerState = power })
}
