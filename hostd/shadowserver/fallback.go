package shadowserver

import (
	"context"
	"fmt"
	"os"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// giveUp records that an attempt has failed, and then cleans up after it.
func (w *worker) giveUp(ctx context.Context, number uint64, failure *umbrav1.Failure) error {
	w.log.Warn("an attempt failed", "attempt", number, "step", failure.GetStep().String(),
		"reason", failure.GetReason().String(), "error", failure.GetMessage())
	w.showStepFailed(failure.GetStep(), failure.GetMessage())
	w.show(func(r *umbrav1.ShadowReport) { r.Failure = failure })
	report, err := encodeReport(w.shownNow())
	if err != nil {
		return err
	}
	err = w.saveAttempt(number, func(a *attempt) { a.State, a.Report = attemptFailing, report })
	if err != nil {
		return err
	}
	return w.cleanUpFailed(ctx, number)
}

// cleanUpFailed removes the server of a failed attempt, brings the one before it back if it was stopped for it, and
// shows the failure. An attempt that was never booted leaves nothing; the overlays of one that was are kept.
func (w *worker) cleanUpFailed(ctx context.Context, number uint64) error {
	failed := *w.rec.attempt(number)
	lost, err := w.fallBack(ctx, failed)
	if err != nil {
		return err
	}
	if !failed.Booted {
		if err := w.dropFiles(ctx, failed); err != nil {
			return err
		}
	}
	report := failed.Report
	if lost != nil {
		if report, err = withLostServer(report, lost); err != nil {
			return err
		}
	}
	err = w.saveAttempt(number, func(a *attempt) { a.State, a.Switched, a.Report = attemptFailed, false, report })
	if err != nil {
		return err
	}
	return w.showResult(report, umbrav1.ShadowPhase_SHADOW_PHASE_FAILED, w.rec.Current, w.serverPower(ctx))
}

// fallBack leaves the current attempt's server as it was before the failed attempt, or no server if there is no
// current one. lost says why the current one could not be brought back; then there is none any more.
func (w *worker) fallBack(ctx context.Context, failed attempt) (lost, err error) {
	if w.rec.Current == 0 || w.rec.Current == failed.Number {
		return nil, w.removeServer(ctx)
	}
	_, number, err := w.ownServer(ctx)
	if err != nil {
		return nil, err
	}
	if !failed.Switched && (number == w.rec.Current || number == 0) {
		return nil, nil // it runs, or its user stopped or removed it
	}
	lost = w.bringBack(ctx, failed.OldOn || !failed.Switched)
	if lost == nil {
		return nil, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	w.log.Warn("the server of the attempt before could not be brought back", "attempt", w.rec.Current, "error", lost)
	return lost, w.removeServer(ctx)
}

// bringBack makes the current attempt's server the defined one again, and starts it if it was on.
func (w *worker) bringBack(ctx context.Context, on bool) error {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	current := w.rec.attempt(w.rec.Current)
	s, number, err := w.ownServer(ctx)
	if err != nil {
		return err
	}
	if number != current.Number {
		if s.Power != hypervisor.PowerAbsent {
			if err := w.destroy(ctx, s.Name); err != nil {
				return err
			}
		}
		if err := w.defineXML(ctx, w.rec.Server, current.XML); err != nil {
			return err
		}
	}
	if !on {
		return nil
	}
	return w.start(ctx, w.rec.Server)
}

// undoAbandonedSwitch brings the current attempt's server back when a later attempt, that nobody asks for any more,
// was given up half-way through taking its place.
func (w *worker) undoAbandonedSwitch(ctx context.Context) error {
	for _, at := range w.rec.Attempts {
		if !at.Switched || at.Number == w.rec.Current {
			continue
		}
		if err := w.bringBack(ctx, at.OldOn); err != nil {
			return fmt.Errorf("bringing back the server of attempt %d: %w", w.rec.Current, err)
		}
		if err := w.saveAttempt(at.Number, func(a *attempt) { a.Switched = false }); err != nil {
			return err
		}
	}
	return nil
}

// dropFiles removes an attempt's folder and closes its view, unless another attempt needs that.
func (w *worker) dropFiles(ctx context.Context, at attempt) error {
	if err := os.RemoveAll(at.Dir); err != nil {
		return fmt.Errorf("removing the disks of attempt %d: %w", at.Number, err)
	}
	if w.rec.usesPoint(at.Point, at.Number) {
		return nil
	}
	store, err := w.cfg.Replica.Store(w.pair)
	if err != nil {
		return fmt.Errorf("opening the recovery points: %w", err)
	}
	if err := store.CloseView(ctx, recoverystore.PointID(at.Point)); err != nil {
		return fmt.Errorf("closing the view of recovery point %s: %w", at.Point, err)
	}
	return nil
}

// withLostServer adds to a stored failure that the server before is lost too.
func withLostServer(stored []byte, lost error) ([]byte, error) {
	report, err := decodeReport(stored)
	if err != nil {
		return nil, err
	}
	report.Failure.Message += fmt.Sprintf("; and the server that ran before could not be started again: %v", lost)
	return encodeReport(report)
}
