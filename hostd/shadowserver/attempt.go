package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const attemptFoldersMax = 1000 // names tried for one attempt's folder

// runServer makes the assignment's attempt run, or shows how it failed.
func (w *worker) runServer(ctx context.Context, a *umbrav1.Assignment) error {
	running, err := w.ensureRunning(ctx, a)
	if err != nil || !running {
		return err
	}
	return w.showResult(w.rec.attempt(w.rec.Current).Report,
		umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, 0, w.serverPower(ctx))
}

// ensureRunning makes the assignment's attempt the current one, if it can be. false without an error means that the
// attempt has failed, which is shown and will not change.
func (w *worker) ensureRunning(ctx context.Context, a *umbrav1.Assignment) (bool, error) {
	if w.rec.committed() {
		return false, w.refuseCommitted(ctx)
	}
	if err := w.stopReplication(ctx, a); err != nil {
		return false, err
	}
	number := a.GetShadow().GetAttempt().GetNumber()
	if done := w.rec.attempt(number); done != nil {
		switch {
		case w.rec.Current == number:
			return true, w.undoAbandonedSwitch(ctx)
		case done.State == attemptFailed:
			return false, w.showResult(done.Report, umbrav1.ShadowPhase_SHADOW_PHASE_FAILED, w.rec.Current, w.serverPower(ctx))
		case done.State == attemptFailing:
			return false, w.cleanUpFailed(ctx, number)
		}
	}
	err := w.boot(ctx, a)
	var failed *stepError
	if ctx.Err() == nil && errors.As(err, &failed) {
		return false, w.giveUp(ctx, number, w.failure(failed.step, err))
	}
	return err == nil, err
}

// boot is one attempt. Every step may be repeated, and finds what an earlier life has done.
type boot struct {
	*worker
	number uint64
	spec   *umbrav1.ShadowAssignment
	store  *recoverystore.Store
	point  recoverystore.Point
	def    definition
	scan   scan
}

// boot takes the assignment's attempt through its steps. A stepError is final.
func (w *worker) boot(ctx context.Context, a *umbrav1.Assignment) error {
	b := &boot{worker: w, spec: a.GetShadow(), number: a.GetShadow().GetAttempt().GetNumber()}
	if err := b.begin(); err != nil {
		return err
	}
	change := w.rec.Server != "" && len(w.rec.Attempts) > 1
	kinds := []umbrav1.StepKind{umbrav1.StepKind_STEP_KIND_PREPARE_DISKS}
	if change {
		kinds = append(kinds, umbrav1.StepKind_STEP_KIND_STOP_SERVER)
	}
	kinds = append(kinds, umbrav1.StepKind_STEP_KIND_DEFINE_SERVER,
		umbrav1.StepKind_STEP_KIND_START_SERVER, umbrav1.StepKind_STEP_KIND_VERIFY_SERVER)
	w.plan(umbrav1.ShadowPhase_SHADOW_PHASE_STARTING, b.number, kinds...)

	if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, prepareTimeout, b.prepare); err != nil {
		return err
	}
	if change {
		if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_STOP_SERVER, stopTimeout, b.stopOther); err != nil {
			return err
		}
	}
	if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, defineTimeout, b.define); err != nil {
		return err
	}
	if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_START_SERVER, startTimeout, b.start); err != nil {
		return err
	}
	if err := w.step(ctx, umbrav1.StepKind_STEP_KIND_VERIFY_SERVER, b.verifyLimit(), b.verify); err != nil {
		return err
	}
	report, err := encodeReport(w.shownNow())
	if err != nil {
		return err
	}
	w.log.Info("the shadow server runs", "server", b.spec.GetServer(), "attempt", b.number, "point", string(b.point.ID))
	return w.save(func(r *record) {
		at := r.attempt(b.number)
		at.State, at.Report, at.Switched = attemptVerified, report, false
		r.Current = b.number
	})
}

// attempt is this attempt's record.
func (b *boot) attempt() *attempt { return b.rec.attempt(b.number) }

// begin remembers the attempt, with a folder of its own, before anything of it exists.
func (b *boot) begin() error {
	want := b.spec.GetAttempt()
	if want.GetNumber() == 0 || want.GetRecoveryPoint() == "" || b.spec.GetServer() == "" {
		return errors.New("the assignment names no attempt, no recovery point or no server")
	}
	if known := b.attempt(); known != nil {
		if known.Point != want.GetRecoveryPoint() {
			return fmt.Errorf("attempt %d is of recovery point %s and cannot be of %s too", want.GetNumber(), known.Point, want.GetRecoveryPoint())
		}
		if known.State == attemptVerified { // it ran once and was stopped: its overlays are good
			return b.saveAttempt(b.number, func(a *attempt) { a.State = attemptPrepared })
		}
		return nil
	}
	dir, err := b.freeFolder(want.GetNumber())
	if err != nil {
		return err
	}
	return b.save(func(r *record) {
		r.Attempts = append(r.Attempts, attempt{
			Number: want.GetNumber(), Point: want.GetRecoveryPoint(), Force: want.GetForce(),
			Dir: dir, State: attemptPreparing,
		})
	})
}

// freeFolder names a folder that does not exist. One that does is somebody else's: ours are in the journal.
func (b *boot) freeFolder(number uint64) (string, error) {
	first := filepath.Join(b.dir, fmt.Sprintf("attempt-%d", number))
	dir := first
	for i := 2; fileExists(dir); i++ {
		if i > attemptFoldersMax {
			return "", fmt.Errorf("no free folder name beside %s", first)
		}
		dir = fmt.Sprintf("%s-%d", first, i)
	}
	return dir, nil
}

// stopOther takes the power of the server of another attempt. Its disks are kept until the commit.
func (b *boot) stopOther(ctx context.Context) (string, error) {
	s, number, err := b.ownServer(ctx)
	if err != nil {
		return "", err
	}
	if number == 0 || number == b.number {
		return "no other server was there", nil
	}
	if !b.attempt().Switched {
		on := number != b.rec.Current || s.Power != hypervisor.PowerOff
		if err := b.saveAttempt(b.number, func(a *attempt) { a.Switched, a.OldOn = true, on }); err != nil {
			return "", err
		}
	}
	if err := b.destroy(ctx, s.Name); err != nil {
		return "", err
	}
	return fmt.Sprintf("the server of attempt %d was stopped; its disks are kept until the commit", number), nil
}

// define gives the definition to the hypervisor.
func (b *boot) define(ctx context.Context) (string, error) {
	s, number, err := b.ownServer(ctx)
	if err != nil {
		return "", err
	}
	if number == b.number {
		return "it is defined already", nil
	}
	if number == 0 {
		if err := b.checkHost(ctx, b.def); err != nil {
			return "", err
		}
	} else if s.Power != hypervisor.PowerOff {
		if err := b.destroy(ctx, s.Name); err != nil {
			return "", err
		}
	}
	err = b.save(func(r *record) {
		r.Server, r.UUID = b.def.Name, b.def.UUID
		r.attempt(b.number).XML = b.def.XML
	})
	if err != nil {
		return "", err
	}
	if err := b.defineXML(ctx, b.def.Name, b.def.XML); err != nil {
		return "", err
	}
	return b.def.summary(), nil
}

func (w *worker) defineXML(ctx context.Context, name, xml string) error {
	return w.call(ctx, "defining server "+name, func(ctx context.Context) error { return w.cfg.Target.Define(ctx, xml) })
}

// start starts the server. From here on its overlays may hold what nobody else has.
func (b *boot) start(ctx context.Context) (string, error) {
	if !b.attempt().Booted {
		if err := b.saveAttempt(b.number, func(a *attempt) { a.Booted = true }); err != nil {
			return "", err
		}
	}
	return "", b.worker.start(ctx, b.def.Name)
}
