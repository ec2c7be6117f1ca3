package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/tracing"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// session is one stream to the shadow host with the cycles that it carries.
type session struct {
	worker *worker
	link   *link
	disks  []hypervisor.Disk

	coverage coverage // what the shadow has confirmed
	hasPoint bool     // the shadow has a complete recovery point
	mayHold  bool     // the shadow holds data that comparing may save sending
	changed  int64    // bytes sent since the last point
	futile   int      // jobs in a row that scratch space ended before they had got anywhere
}

// serve opens a stream and makes recovery points until something fails or ctx ends. It never returns nil.
func (w *worker) serve(ctx context.Context) error {
	server, err := w.prepare(ctx)
	if err != nil {
		return err
	}
	disks := replicable(server)
	if len(disks) == 0 {
		return fmt.Errorf("server %s: %w", server.Name, errNoDisks)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	a := w.desired.current()
	conn, err := w.cfg.Dial(a.GetMain().GetShadowDataAddress(), a.GetMain().GetShadowHost())
	if err != nil {
		return &streamError{err}
	}
	defer func() { _ = conn.Close() }() // it was closed before, or never will be missed
	st, err := transport.Open(ctx, conn)
	if err != nil {
		return &streamError{err}
	}
	l, err := openLink(ctx, st, fail, &umbrav1.ReplicationHello{
		DrPair: w.pair, DrPairUid: w.ledger.record.UID, Epoch: a.GetEpoch(),
		ResyncGeneration: a.GetMain().GetResyncGeneration(), Disks: replicatedDisks(disks),
	})
	if err != nil {
		return causeOf(ctx, err)
	}
	defer l.close()
	s := &session{worker: w, link: l, disks: disks}
	if err := s.takeStock(ctx, server.Name); err != nil {
		return causeOf(ctx, err)
	}
	return causeOf(ctx, l.reason(s.cycles(ctx)))
}

// causeOf says why ctx ended, when it has ended for a reason of its own: err is a consequence then.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// takeStock finds out what the shadow's coverage is worth: nothing, if its checkpoint is gone.
func (s *session) takeStock(ctx context.Context, server string) error {
	welcome := s.link.welcome
	covered := coverageOf(welcome.GetCoverage())
	names, err := s.worker.checkpoints(ctx, server)
	if err != nil {
		return err
	}
	s.hasPoint = welcome.GetHasRecoveryPoint()
	s.worker.hasPoint = s.hasPoint
	s.mayHold = s.hasPoint
	if slices.Contains(names, covered.checkpoint) {
		s.coverage = covered
	} else if covered.checkpoint != "" {
		s.forget("its checkpoint is gone")
	}
	s.worker.tidyCheckpoints(ctx, server, s.coverage.checkpoint)
	return nil
}

// forget gives up the coverage: the disks will be compared as a whole.
func (s *session) forget(why string) {
	s.worker.log.Info("changes are unknown, the disks are compared", "why", why, "checkpoint", s.coverage.checkpoint)
	s.coverage = coverage{}
	s.mayHold = true
}

// cycles makes one point after the other.
func (s *session) cycles(ctx context.Context) error {
	w := s.worker
	for {
		if err := w.untilDue(ctx, s.hasPoint); err != nil {
			return err
		}
		if err := s.inSlot(ctx, s.cycle); err != nil {
			return err
		}
	}
}

// inSlot runs a cycle when it is the pair's turn. Cycles that read whole disks have slots of their own: they take hours, and must not keep the
// others from their points.
func (s *session) inSlot(ctx context.Context, cycle func(context.Context) error) error {
	w := s.worker
	turn, kind := w.shared.increments, kindIncrement
	if !s.coverage.whole(s.disks) || slices.ContainsFunc(s.disks, func(d hypervisor.Disk) bool { return !d.TracksChanges }) {
		turn, kind = w.shared.copies, kindCopy
	}
	if err := turn.acquire(ctx, w.pair, w.due); err != nil {
		return err
	}
	defer turn.release()
	began := w.cfg.Clock.Now()
	traced, span := w.cycleSpan(ctx, kind)
	err := cycle(traced)
	tracing.End(span, err)
	w.shared.figures.cycled(ctx, w.pair, kind, w.cfg.Clock.Now().Sub(began), err)
	return err
}

const intervalDefault = 15 * time.Second

// interval is the time from the beginning of one point to that of the next.
func interval(a *umbrav1.Assignment) time.Duration {
	d := a.GetMain().GetPolicy().GetInterval()
	if d == nil {
		return intervalDefault
	}
	return max(d.AsDuration(), time.Second)
}
