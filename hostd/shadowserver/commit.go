package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	flattenIntervalMin = 50 * time.Millisecond
	flattenIntervalMax = time.Second
	// flattenStall is how long no byte may move before the flattening is called stuck.
	flattenStall = 10 * time.Minute
	// flattenTimeout bounds one try; the next goes on with a copy that runs.
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

// flatten copies the server's disks to images that stand alone, has the server go on with those, and then removes everything else.
func (w *worker) flatten(ctx context.Context) (string, error) {
	if !w.rec.committed() {
		if err := (&flattening{worker: w}).run(ctx); err != nil {
			return "", err
		}
		if err := w.save(func(r *record) { r.Commit = commitFlattened }); err != nil {
			return "", err
		}
	}
	if err := w.forgetOverlays(); err != nil {
		return "", err
	}
	if err := w.forgetAttempts(ctx, w.rec.Current); err != nil {
		return "", err
	}
	return "the disks stand alone", nil
}

// forgetOverlays removes those of the current attempt that the server has left.
func (w *worker) forgetOverlays() error {
	at := w.rec.attempt(w.rec.Current)
	images, err := w.recordedImages()
	if err != nil {
		return err
	}
	for target, image := range images {
		if !standsAlone(image.path, target) { // an earlier version had the overlay itself stand alone
			continue
		}
		if err := os.Remove(overlayPath(at.Dir, target)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the overlay of disk %s: %w", target, err)
		}
	}
	return nil
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
