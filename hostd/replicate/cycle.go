package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const (
	// futileMax is how many jobs in a row may get nowhere before it is reported.
	futileMax = 3
	// scratchSoftPercent of the scratch limit ends a job where that loses nothing.
	scratchSoftPercent = 90
)

// cycle runs one backup job. When it returns nil, either there is a new point and the next cycle is due after the interval, or there
// is progress towards one, or a reason to begin anew, and the next cycle is due at once.
func (s *session) cycle(ctx context.Context) error {
	w := s.worker
	server, err := w.server(ctx)
	if err != nil {
		return err
	}
	if !running(server.Power) {
		return errServerOff
	}
	if !sameDisks(s.disks, replicable(server)) {
		w.log.Info("the disks have changed, a new stream begins", "before", targets(s.disks), "now", targets(replicable(server)))
		return errDisksDiffer
	}
	w.begun()
	j, err := s.beginJob(ctx, s.coverage.checkpoint)
	if errors.Is(err, hypervisor.ErrCheckpointLost) && s.coverage.checkpoint != "" {
		s.forget(err.Error())
		w.dueNow()
		// A broken bitmap also stands in the way of new checkpoints.
		return w.deleteCheckpoints(ctx, server.Name, "")
	}
	if err != nil {
		return err
	}
	defer j.end(ctx)
	return s.runJob(ctx, j)
}

func (s *session) runJob(ctx context.Context, j *job) error {
	w := s.worker
	c := &copier{
		link: s.link, clock: w.cfg.Clock, limiter: w.limiter, io: w.newIOControl(j.server), progress: &progress{}, traffic: w.traffic, exports: j.exports,
		checkpoint: j.checkpoint, covered: make([]uint64, len(j.exports)),
	}
	for i, e := range j.exports {
		c.covered[i] = e.start
	}
	moving := w.phaseMoving(s, j.exports)
	c.onConfirmed = func() {
		w.settle()
		w.status.change(func(v *view) { v.phase, v.failure = moving, nil })
	}
	w.status.change(func(v *view) {
		// A failure that was reported stays until the shadow has confirmed progress.
		if v.phase != umbrav1.MainPhase_MAIN_PHASE_ERROR {
			v.phase, v.failure = moving, nil
		}
	})
	w.status.watch(c.progress)
	defer w.status.watch(nil)
	err := s.watched(ctx, j, c)
	s.changed += c.changed
	if err != nil {
		return s.ended(err)
	}
	if c.stopped != nil {
		return s.endEarly(ctx, j, c)
	}
	return s.complete(ctx, j)
}

// watched copies while a jobWatch looks on, and while the server is spared if whole disks are copied.
func (s *session) watched(ctx context.Context, j *job, c *copier) error {
	copying, stop := context.WithCancel(ctx)
	watch := newJobWatch(&s.worker.cfg, j, c.progress)
	var beside sync.WaitGroup
	// A send that hangs is freed only by the end of the stream.
	beside.Go(func() { watch.run(copying, s.link.fail) })
	if c.rest() > 0 {
		beside.Go(func() { c.io.runCopy(copying) })
	} else {
		beside.Go(func() { c.io.runIncrement(copying) })
	}
	err := s.copy(copying, c, watch)
	stop()
	beside.Wait()
	return err
}

// copy runs both phases.
func (s *session) copy(ctx context.Context, c *copier, watch *jobWatch) error {
	sets, err := c.dirtySets(ctx)
	if err != nil {
		return err
	}
	rest := c.rest()
	for i, e := range c.exports {
		if sets[i] != nil {
			c.progress.total.Add(int64(sets[i].count(e.start)) * clusterBytes)
		}
	}
	c.progress.total.Add(int64(rest) * clusterBytes)

	c.stop = func() error { return watch.over(100) }
	err = c.run(ctx, func(ctx context.Context, emit emitter) error { return c.produceChanges(ctx, sets, emit) })
	if err != nil || rest == 0 {
		return err
	}
	if s.coverage.checkpoint != "" {
		// What was covered is now so as of this job.
		if err := c.sendCoverage(); err != nil {
			return err
		}
	}
	c.stop = func() error { return watch.over(scratchSoftPercent) }
	return c.run(ctx, c.produceRest)
}

// ended counts a job that scratch space ended in the first phase.
func (s *session) ended(err error) error {
	if !errors.Is(err, errScratchLimit) && !errors.Is(err, errScratchSpace) {
		return err
	}
	return s.countFutile(err)
}

// countFutile lets the next job begin at once, unless this happens again and again.
func (s *session) countFutile(why error) error {
	s.futile++
	if s.futile < futileMax {
		s.worker.dueNow()
		return nil
	}
	s.futile = 0
	return fmt.Errorf("%d backup jobs in a row got nowhere: %w", futileMax, why)
}

// endEarly ends a job whose scratch space is used up. The next one goes on where this one was.
func (s *session) endEarly(ctx context.Context, j *job, c *copier) error {
	j.end(ctx) // nothing is read any more, and the guest's writes go on filling its scratch files
	want := c.coverage()
	if err := s.link.awaitCoverage(ctx, want); err != nil {
		return err
	}
	if err := s.link.sums.drain(ctx); err != nil {
		return err
	}
	before := s.coverage
	s.coverage = coverageOf(want)
	s.worker.log.Info("a backup job ended early, its scratch space is used up", "checkpoint", j.checkpoint)
	s.worker.tidyCheckpoints(ctx, j.server, j.checkpoint)
	s.worker.settle()
	s.worker.dueNow()
	if advanced(before.clusters, want.GetClusters()) {
		s.futile = 0
		return nil
	}
	return s.countFutile(c.stopped)
}

// futileClusters is how far a job must have come, in clusters, not to count as futile: 64 MiB.
const futileClusters = 1024

func advanced(before, after []uint64) bool {
	var a, b uint64
	for _, n := range before {
		b += n
	}
	for _, n := range after {
		a += n
	}
	return a >= b+futileClusters
}

// complete makes the point. The job ends before the shadow is asked for anything, which may have to wait behind data: the shadow has all
// that it needs, and the guest's writes are held up no longer.
func (s *session) complete(ctx context.Context, j *job) error {
	w := s.worker
	j.end(ctx)
	err := s.link.control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_CompletePoint{
		CompletePoint: &umbrav1.CompletePoint{},
	}})
	if err != nil {
		return err
	}
	point, err := s.link.awaitPoint(ctx, j.checkpoint)
	if err != nil {
		return err
	}
	trace.SpanFromContext(ctx).SetAttributes(tracing.KeyPoint.String(point), attribute.Int64("umbra.changed_bytes", s.changed))
	w.log.Debug("recovery point stored", "recovery_point", point, "changed_bytes", s.changed)
	s.coverage = coverage{checkpoint: j.checkpoint}
	for _, e := range j.exports {
		s.coverage.clusters = append(s.coverage.clusters, e.clusters())
	}
	s.hasPoint, s.mayHold, s.changed, s.futile = true, true, 0, 0
	w.hasPoint = true
	if err := w.ledger.update(func(r *record) { r.PointStored = true }); err != nil {
		return err
	}
	w.settle()
	w.status.change(func(v *view) { v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_REPLICATING, nil })
	w.tidyCheckpoints(ctx, j.server, j.checkpoint)
	return nil
}

// phaseMoving is the phase of a job that does its work.
func (w *worker) phaseMoving(s *session, exports []*export) umbrav1.MainPhase {
	if !s.hasPoint {
		return umbrav1.MainPhase_MAIN_PHASE_INITIAL_SYNC
	}
	comparing := slices.ContainsFunc(s.disks, func(d hypervisor.Disk) bool {
		i := slices.IndexFunc(exports, func(e *export) bool { return e.target == d.Target })
		return d.TracksChanges && exports[i].start < exports[i].clusters()
	})
	if comparing || !w.ledger.record.PointStored {
		return umbrav1.MainPhase_MAIN_PHASE_RESYNCING
	}
	return umbrav1.MainPhase_MAIN_PHASE_REPLICATING
}
