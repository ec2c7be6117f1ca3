package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const (
	flattenInterval = 250 * time.Millisecond
	// flattenStall is how long no byte may move before the flattening is called stuck and begun anew.
	flattenStall = 10 * time.Minute
	// flattenTimeout bounds one try; the next goes on where it ended.
	flattenTimeout = 7 * 24 * time.Hour
)

// commit makes the running attempt's disks stand alone and forgets everything else. Once it has begun it finishes:
// what fails is tried again.
func (w *worker) commit(ctx context.Context, a *umbrav1.Assignment) error {
	if w.rec.Commit == commitComplete {
		return w.showResult(w.rec.CommitReport, umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED, 0, w.serverPower(ctx))
	}
	if w.rec.Commit == commitNone {
		if running, err := w.ensureRunning(ctx, a); err != nil || !running {
			return err
		}
		if err := w.save(func(r *record) { r.Commit = commitFlattening }); err != nil {
			return err
		}
	} else if err := w.stopReplication(ctx, a); err != nil {
		return err
	}
	deletes := a.GetShadow().GetDeleteRecoveryPoints()
	w.planCommit(deletes)
	if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS, flattenTimeout, w.flatten); err != nil {
		return err
	}
	if deletes {
		if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_DELETE_RECOVERY_POINTS, deleteTimeout, w.deletePoints); err != nil {
			return err
		}
	}
	report, err := encodeReport(w.shownNow())
	if err != nil {
		return err
	}
	err = w.save(func(r *record) { r.Commit, r.CommitReport = commitComplete, report })
	if err != nil {
		return err
	}
	w.log.Info("the failover is committed", "server", w.rec.Server, "attempt", w.rec.Current)
	return w.showResult(report, umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED, 0, w.serverPower(ctx))
}

// planCommit shows the commit's steps. A try that follows another keeps when the first one began.
func (w *worker) planCommit(deletes bool) {
	before := w.shownNow()
	if before.GetPhase() == umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTING {
		w.show(func(r *umbrav1.ShadowReport) { r.Failure = nil })
		return
	}
	kinds := []umbrav1.StepKind{umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS}
	if deletes {
		kinds = append(kinds, umbrav1.StepKind_STEP_KIND_DELETE_RECOVERY_POINTS)
	}
	w.plan(umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTING, w.rec.Current, kinds...)
}

// flatten copies everything that the server's disks still take from the recovery point into them, then makes that
// so for the definition, and then removes the other attempts.
func (w *worker) flatten(ctx context.Context) (string, error) {
	if w.rec.Commit == commitFlattening {
		if err := w.pullAll(ctx); err != nil {
			return "", err
		}
		if err := w.defineStandAlone(ctx); err != nil {
			return "", err
		}
		if err := w.save(func(r *record) { r.Commit = commitFlattened }); err != nil {
			return "", err
		}
	}
	if err := w.forgetAttempts(ctx, w.rec.Current); err != nil {
		return "", err
	}
	return "the disks stand alone", nil
}

// pullAll pulls every disk, one after another, until none has a backing file. The server may stop meanwhile, by a
// crash or by its user; it is started again, since disks can be pulled only while it runs.
func (w *worker) pullAll(ctx context.Context) error {
	p := &pull{worker: w}
	for {
		s, err := w.keepRunning(ctx)
		if err != nil {
			return err
		}
		left, err := p.round(ctx, s)
		if err != nil && !errors.Is(err, hypervisor.ErrNotRunning) {
			return err
		}
		if err == nil && left == 0 {
			return nil
		}
		now := w.cfg.Clock.Now()
		w.showStep(umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS, func(s *umbrav1.Step) { s.Progress = p.progress(now) })
		if stalled := p.stalled(now); stalled > flattenStall {
			return fmt.Errorf("no byte was copied for %s", stalled)
		}
		if err := w.cfg.Clock.Wait(ctx, flattenInterval); err != nil {
			return err
		}
	}
}

// keepRunning gets our server running, whatever became of it since it was verified.
func (w *worker) keepRunning(ctx context.Context) (hypervisor.Server, error) {
	s, number, err := w.ownServer(ctx)
	if err != nil {
		return s, err
	}
	if number == w.rec.Current && s.Power != hypervisor.PowerOff {
		return s, nil
	}
	w.log.Info("the server is started, since its disks can be made to stand alone only while it runs", "server", w.rec.Server)
	if err := w.bringBack(ctx, true); err != nil {
		return s, err
	}
	s, number, err = w.ownServer(ctx)
	if err == nil && number != w.rec.Current {
		err = fmt.Errorf("server %s does not have the disks of attempt %d", w.rec.Server, w.rec.Current)
	}
	return s, err
}

// defineStandAlone takes the recovery point out of the server's definition, and looks whether that holds.
func (w *worker) defineStandAlone(ctx context.Context) error {
	ours := func(path string) bool { return w.rec.attemptOf(path) == w.rec.Current }
	for range 2 {
		var xml string
		err := w.call(ctx, "reading the server's definition", func(ctx context.Context) (err error) {
			xml, err = w.cfg.Target.ServerXML(ctx, w.rec.Server)
			return err
		})
		if err != nil {
			return err
		}
		alone, changed, err := standAlone(xml, ours)
		if err != nil || !changed {
			return err
		}
		if err := w.defineXML(ctx, w.rec.Server, alone); err != nil {
			return err
		}
	}
	return fmt.Errorf("the definition of server %s still names the recovery point after it was changed", w.rec.Server)
}

// deletePoints deletes every recovery point, and what there is of an unfinished one. No disk needs them any more.
func (w *worker) deletePoints(ctx context.Context) (string, error) {
	store, err := w.cfg.Replica.Store(w.pair)
	if err != nil {
		return "", fmt.Errorf("opening the recovery points: %w", err)
	}
	count := len(store.Points())
	if err := store.DeleteAll(ctx); err != nil {
		return "", fmt.Errorf("deleting the recovery points: %w", err)
	}
	if err := store.DiscardDraft(ctx); err != nil {
		return "", fmt.Errorf("discarding the unfinished recovery point: %w", err)
	}
	w.cfg.Replica.Refresh(w.pair)
	return fmt.Sprintf("%d recovery points were deleted", count), nil
}
