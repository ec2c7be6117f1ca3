package replicate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

const (
	// spreadMax bounds the delay by which the first cycles of a host's pairs are spread.
	spreadMax = 15 * time.Second
	// offEvery is how often a server that is off is looked at.
	offEvery = 3 * time.Second
	// retryFirst and retryMax bound the time between a failure and the next try.
	retryFirst = 500 * time.Millisecond
	retryMax   = 30 * time.Second
)

// shared is what the workers of a host share.
type shared struct {
	increments *slots
	copies     *slots
	figures    *figures
}

// worker does what is assigned for one pair. Everything in it belongs to the goroutine of run, unless it says otherwise.
type worker struct {
	cfg     Config
	pair    string
	log     *slog.Logger
	shared  *shared
	desired *desired      // safe for concurrent use
	status  *status       // safe for concurrent use
	limiter *rate.Limiter // safe for concurrent use
	traffic traffic       // safe for concurrent use

	ledger    *ledger
	retry     *backoff.ExponentialBackOff
	failures  int       // in a row
	hasPoint  bool      // the shadow had a point when it was last asked
	bornAt    time.Time // when run began
	startedAt time.Time // when the last cycle began; zero before the first
	due       time.Time // when the next one is due
	again     bool      // it is due at once
}

func newRetry() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = retryFirst, retryMax
	return b
}

// run works until ctx ends, after the pair's earlier worker has ended.
func (w *worker) run(ctx context.Context, earlier <-chan struct{}) {
	if earlier != nil {
		<-earlier
	}
	ctx = telemetry.For(ctx, w.log)
	w.bornAt = w.cfg.Clock.Now()
	w.retry = newRetry()
	var beating sync.WaitGroup
	defer beating.Wait()
	beatCtx, stopBeat := context.WithCancel(ctx)
	defer stopBeat()
	beating.Go(func() { w.status.beat(beatCtx) })
	for ctx.Err() == nil {
		a, changed := w.desired.take()
		w.status.begin(a)
		w.converge(ctx, a, changed)
	}
}

// converge does what the assignment's mode asks until another one is assigned or ctx ends.
func (w *worker) converge(ctx context.Context, a *umbrav1.Assignment, changed <-chan struct{}) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() {
		select {
		case <-changed:
			stop()
		case <-ctx.Done():
		}
	})
	if err := w.openLedger(ctx, a); err != nil {
		return
	}
	w.log.Info("assigned", "mode", a.GetMain().GetMode().String(), "generation", a.GetGeneration())
	switch a.GetMain().GetMode() {
	case umbrav1.MainMode_MAIN_MODE_REPLICATE:
		w.replicate(ctx)
	case umbrav1.MainMode_MAIN_MODE_PAUSE:
		w.rest(ctx)
	case umbrav1.MainMode_MAIN_MODE_FENCE:
		w.fence(ctx)
	case umbrav1.MainMode_MAIN_MODE_RELEASE:
		w.release(ctx)
	default:
		w.log.Error("an assignment of an unknown mode is not followed", "mode", a.GetMain().GetMode().String())
		<-ctx.Done()
	}
}

// openLedger reads the journal and sees to it that it is about the assigned pair, until that succeeds or ctx ends. Without knowing what was done
// nothing can be done.
func (w *worker) openLedger(ctx context.Context, a *umbrav1.Assignment) error {
	for {
		var err error
		if w.ledger == nil {
			w.ledger, err = openLedger(w.cfg.Journal, w.pair)
		}
		if err == nil {
			err = w.ownLedger(ctx, a)
		}
		if err == nil {
			return nil
		}
		w.fail(err)
		w.pause(ctx, w.retry.NextBackOff())
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// rest is PAUSE: no job runs, checkpoints go on tracking. A job that cannot be ended is tried again until it is.
func (w *worker) rest(ctx context.Context) {
	ended := w.endLeftJob(ctx, endMax)
	w.status.change(func(v *view) { v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_PAUSED, nil })
	for ctx.Err() == nil {
		if _, err := w.server(ctx); err != nil && ctx.Err() == nil {
			w.log.Debug("the paused server cannot be looked at", "error", err)
		}
		if ended {
			w.pause(ctx, slowBeats*movingBeat)
			continue
		}
		w.pause(ctx, movingBeat)
		if ctx.Err() == nil { // whatever comes next must not wait for another try
			ended = w.endLeftJob(ctx, endMax)
		}
	}
}

// replicate is REPLICATE: streams, one after the other, until ctx ends.
func (w *worker) replicate(ctx context.Context) {
	w.settle()
	w.status.change(func(v *view) { v.phase, v.fenceMessage = w.phaseResting(), "" })
	for ctx.Err() == nil {
		err := w.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		w.pause(ctx, w.afterFailure(ctx, err))
	}
}

// afterFailure reports why a stream ended and returns how long to wait before the next.
func (w *worker) afterFailure(ctx context.Context, err error) time.Duration {
	if errors.Is(err, errDisksDiffer) {
		w.dueNow()
		return retryFirst
	}
	if !errors.Is(err, errServerOff) && w.turnedOff(ctx) {
		err = errServerOff // whatever failed, failed for that
	}
	if errors.Is(err, errServerOff) {
		w.status.change(func(v *view) {
			if v.failure.GetReason() != umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING {
				v.phase, v.failure = w.phaseResting(), failureOf(err, w.cfg.Clock.Now())
			}
		})
		return offEvery
	}
	w.failures++
	if w.failures == 1 && passing(err) {
		w.log.Info("the stream ended and is opened again", "reason", err)
		return w.retry.NextBackOff()
	}
	w.fail(err)
	return w.retry.NextBackOff()
}

// passing tells whether err is of a kind that is often over at the next try: a daemon restarted, or one of the hosts has got its newest assignment before the other.
func passing(err error) bool {
	var stream *streamError
	var refused *refusedError
	if errors.As(err, &refused) {
		return refused.failure.GetRetryable()
	}
	return errors.As(err, &stream)
}

func (w *worker) turnedOff(ctx context.Context) bool {
	server, err := w.server(ctx)
	return err == nil && server.Power == hypervisor.PowerOff
}

// fail reports a failure that is tried again.
func (w *worker) fail(err error) {
	w.log.Warn("replication failed and is tried again", "error", err)
	w.status.change(func(v *view) {
		v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_ERROR, failureOf(err, w.cfg.Clock.Now())
	})
}

// phaseResting is the phase while nothing is copied.
func (w *worker) phaseResting() umbrav1.MainPhase {
	switch rec := w.ledger.record; {
	case rec.PointStored && rec.ResyncGeneration == w.desired.current().GetMain().GetResyncGeneration():
		return umbrav1.MainPhase_MAIN_PHASE_REPLICATING
	case w.hasPoint || rec.PointStored:
		return umbrav1.MainPhase_MAIN_PHASE_RESYNCING
	}
	return umbrav1.MainPhase_MAIN_PHASE_INITIAL_SYNC
}

// settle notes that there was progress: the next failure is a first one.
func (w *worker) settle() {
	w.retry.Reset()
	w.failures = 0
}

// confirmed tells whether the control plane has confirmed the role since this process started.
func (w *worker) confirmed() bool {
	return (w.cfg.Confirmed == nil || w.cfg.Confirmed()) && !w.desired.current().GetHold()
}

// begun notes that a cycle begins now.
func (w *worker) begun() { w.startedAt, w.again = w.cfg.Clock.Now(), false }

// dueNow makes the next cycle due at once.
func (w *worker) dueNow() { w.again = true }

// untilDue waits until the next cycle is due, also by a policy that changes meanwhile.
func (w *worker) untilDue(ctx context.Context, hasPoint bool) error {
	for {
		a, news := w.desired.watch()
		now := w.cfg.Clock.Now()
		switch {
		case w.again, !hasPoint:
			w.due = now
		case w.startedAt.IsZero():
			w.due = w.bornAt.Add(spread(w.pair, min(interval(a), spreadMax)))
		default:
			w.due = w.startedAt.Add(interval(a))
		}
		if !w.due.After(now) {
			return context.Cause(ctx)
		}
		waiting, stop := context.WithCancel(ctx)
		unwatch := make(chan struct{})
		go func() {
			defer close(unwatch)
			select {
			case <-news:
				stop()
			case <-waiting.Done():
			}
		}()
		err := w.cfg.Clock.Wait(waiting, w.due.Sub(now))
		stop()
		<-unwatch
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			return nil
		}
	}
}

// pause waits, or until ctx ends.
func (w *worker) pause(ctx context.Context, d time.Duration) {
	_ = w.cfg.Clock.Wait(ctx, d) // every caller looks at ctx next
}
