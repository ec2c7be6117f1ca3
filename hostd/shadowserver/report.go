package shadowserver

import (
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
)

// shown is what the pair's report says, without what the replica adds. Guarded by the worker's mutex.
type shown struct {
	uid        string
	generation uint64
	epoch      uint64
	mode       umbrav1.ShadowMode
	attempt    uint64
	report     *umbrav1.ShadowReport
}

// show changes what is reported and has it published.
func (w *worker) show(change func(*umbrav1.ShadowReport)) {
	w.mu.Lock()
	change(w.reported.report)
	w.mu.Unlock()
	wake(w.publish)
}

// shownNow is a copy of what is reported.
func (w *worker) shownNow() *umbrav1.ShadowReport {
	w.mu.Lock()
	defer w.mu.Unlock()
	return proto.CloneOf(w.reported.report)
}

// showAssignment begins the report on an assignment. Its publication is left to the first thing that is known. The
// phase of another mode or attempt says nothing about this one, so it is not carried over.
func (w *worker) showAssignment(a *umbrav1.Assignment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if journal.OtherPair(w.reported.uid, a.GetDrPairUid()) {
		w.reported = shown{report: &umbrav1.ShadowReport{}}
	}
	mode, attempt := a.GetShadow().GetMode(), a.GetShadow().GetAttempt().GetNumber()
	if mode != w.reported.mode || attempt != w.reported.attempt {
		w.reported.mode, w.reported.attempt = mode, attempt
		w.reported.report.Phase = umbrav1.ShadowPhase_SHADOW_PHASE_UNSPECIFIED
	}
	w.reported.uid, w.reported.generation, w.reported.epoch = a.GetDrPairUid(), a.GetGeneration(), a.GetEpoch()
}

// showPhase shows a phase that has no attempt and no steps.
func (w *worker) showPhase(phase umbrav1.ShadowPhase, failure *umbrav1.Failure, power umbrav1.PowerState) {
	w.show(func(r *umbrav1.ShadowReport) {
		conditions := r.GetConditions()
		proto.Reset(r)
		r.Phase, r.Failure, r.ServerState = phase, failure, power
		if phase == umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING {
			r.Conditions = conditions
		}
	})
}

// showResult shows the stored result of an attempt or of a commit in a phase.
func (w *worker) showResult(stored []byte, phase umbrav1.ShadowPhase, running uint64, power umbrav1.PowerState) error {
	result, err := decodeReport(stored)
	if err != nil {
		return err
	}
	w.show(func(r *umbrav1.ShadowReport) {
		proto.Reset(r)
		r.Phase, r.Attempt, r.Steps, r.ServerState = phase, result.GetAttempt(), result.GetSteps(), power
		if phase == umbrav1.ShadowPhase_SHADOW_PHASE_FAILED {
			r.Failure, r.RunningAttempt = result.GetFailure(), running
			if at := w.rec.attempt(running); at != nil {
				r.RunningRecoveryPoint = at.Point
			}
		}
	})
	return nil
}

// showTrouble shows an error that is being tried again, in whatever phase it met the pair.
func (w *worker) showTrouble(err error) {
	step := umbrav1.StepKind_STEP_KIND_UNSPECIFIED
	var failed *stepError
	if errors.As(err, &failed) {
		step = failed.step
	}
	failure := w.failure(step, err)
	failure.Retryable = true
	w.show(func(r *umbrav1.ShadowReport) { r.Failure = failure })
}

// publishOnChange reports what is shown at every change and at a slow beat.
func (w *worker) publishOnChange() {
	beat := w.cfg.Clock.NewTicker(beatInterval)
	defer beat.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-w.publish:
		case <-beat.C:
		}
		w.cfg.Report(w.currentReport())
	}
}

func (w *worker) currentReport() *umbrav1.AssignmentReport {
	status := w.cfg.Replica.Status(w.pair)
	w.mu.Lock()
	defer w.mu.Unlock()
	if journal.OtherPair(status.UID, w.reported.uid) {
		status = replica.Status{} // of an earlier pair of this id, which is being removed
	}
	r := proto.CloneOf(w.reported.report)
	r.StoppedEpoch = status.StoppedEpoch
	r.RecoveryPointCount = int64(status.Count)
	r.StoreBytes = status.StoreBytes
	if status.Newest.ID != "" {
		r.NewestRecoveryPoint = string(status.Newest.ID)
		r.NewestRecoveryPointTime = timestamppb.New(status.Newest.CreateTime)
	}
	if r.Failure == nil && r.GetPhase() == umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING {
		r.Failure = status.Failure
	}
	return &umbrav1.AssignmentReport{
		DrPair:      w.pair,
		DrPairUid:   w.reported.uid,
		Generation:  w.reported.generation,
		Epoch:       w.reported.epoch,
		ObserveTime: timestamppb.New(w.cfg.Clock.Now()),
		Role:        &umbrav1.AssignmentReport_Shadow{Shadow: r},
	}
}
