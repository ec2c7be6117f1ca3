package shadowserver

import (
	"context"
	"fmt"
	"os"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const absent = umbrav1.PowerState_POWER_STATE_ABSENT

// receive removes everything uncommitted of ours, and only then has streams of the assignment's epoch accepted.
func (w *worker) receive(ctx context.Context, a *umbrav1.Assignment) error {
	if w.rec.committed() {
		return w.refuseCommitted(ctx)
	}
	if w.rec.Server != "" || len(w.rec.Attempts) > 0 {
		if err := w.removeServer(ctx); err != nil {
			return err
		}
		if err := w.forgetAttempts(ctx, 0); err != nil {
			return err
		}
	}
	if err := w.apply(ctx, a, true); err != nil {
		return err
	}
	w.showPhase(umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING, nil, absent)
	w.readinessAt = time.Time{} // the policy may have changed
	w.checkReadiness(ctx, a)
	return nil
}

// forgetAttempts removes the disks and views of all attempts but one (0: of all), and then their records. The one
// that is kept keeps its disks, and no view.
func (w *worker) forgetAttempts(ctx context.Context, keep uint64) error {
	store, err := w.cfg.Replica.Store(w.pair)
	if err != nil {
		return fmt.Errorf("opening the recovery points: %w", err)
	}
	for _, at := range w.rec.Attempts {
		if at.Number != keep {
			if err := os.RemoveAll(at.Dir); err != nil {
				return fmt.Errorf("removing the disks of attempt %d: %w", at.Number, err)
			}
		}
		if err := store.CloseView(ctx, recoverystore.PointID(at.Point)); err != nil {
			return fmt.Errorf("closing the view of recovery point %s: %w", at.Point, err)
		}
		if err := w.cfg.faults("attempt-forgotten"); err != nil {
			return err
		}
	}
	if keep == 0 {
		w.removeEmptyFolder()
	}
	return w.save(func(r *record) {
		kept := r.attempt(keep)
		if kept == nil {
			r.Attempts = nil
			return
		}
		r.Attempts = []attempt{*kept}
	})
}

// removeEmptyFolder removes the pair's folder unless somebody's files are in it.
func (w *worker) removeEmptyFolder() {
	if err := os.Remove(w.dir); err != nil && !os.IsNotExist(err) {
		w.log.Debug("the pair's folder of servers stays", "error", err)
	}
}

// stop has streams refused, says so at once, and takes away an uncommitted server. Overlays are kept.
func (w *worker) stop(ctx context.Context, a *umbrav1.Assignment) error {
	if w.rec.committed() {
		return w.refuseCommitted(ctx)
	}
	if err := w.stopReplication(ctx, a); err != nil {
		return err
	}
	w.showPhase(umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED, nil, w.serverPower(ctx))
	if err := w.removeServer(ctx); err != nil {
		return err
	}
	w.showPhase(umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED, nil, absent)
	return nil
}

// delete removes everything of the pair but a committed server and its disks.
func (w *worker) delete(ctx context.Context) error {
	power := absent
	if w.rec.committed() {
		power = w.serverPower(ctx)
	}
	ctx, span := w.span(ctx, umbrav1.StepKind_STEP_KIND_DELETE_RECOVERY_POINTS)
	err := w.clear(ctx)
	tracing.End(span, err)
	if err != nil {
		return err
	}
	w.showPhase(umbrav1.ShadowPhase_SHADOW_PHASE_DELETED, nil, power)
	return nil
}

// clear removes everything that the record is about but a committed server and its disks. The record goes last, since
// nothing is removed that is not named in it.
func (w *worker) clear(ctx context.Context) error {
	if !w.rec.committed() {
		if err := w.removeServer(ctx); err != nil {
			return err
		}
	}
	for _, at := range w.rec.Attempts {
		if w.rec.committed() && at.Number == w.rec.Current {
			continue
		}
		if err := os.RemoveAll(at.Dir); err != nil {
			return fmt.Errorf("removing the disks of attempt %d: %w", at.Number, err)
		}
	}
	bounded, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	if err := w.cfg.Replica.Delete(bounded, w.pair); err != nil {
		return fmt.Errorf("deleting the store: %w", err)
	}
	w.removeEmptyFolder()
	return w.eraseRecord()
}

// refuseCommitted shows that a committed server is not touched, whatever is assigned.
func (w *worker) refuseCommitted(ctx context.Context) error {
	failure := w.failure(umbrav1.StepKind_STEP_KIND_UNSPECIFIED, refuse(umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED,
		"the failover was committed; the server and its disks are no longer the pair's to change"))
	w.log.Error("an assignment asks for a change of a committed server; it is not followed")
	w.showPhase(umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED, failure, w.serverPower(ctx))
	return nil
}
