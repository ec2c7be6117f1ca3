package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// plan shows the steps that are ahead, all of them pending.
func (w *worker) plan(phase umbrav1.ShadowPhase, attempt uint64, kinds ...umbrav1.StepKind) {
	w.show(func(r *umbrav1.ShadowReport) {
		running, power := r.GetRunningAttempt(), r.GetServerState()
		proto.Reset(r)
		r.Phase, r.Attempt, r.RunningAttempt, r.ServerState = phase, attempt, running, power
		for _, kind := range kinds {
			r.Steps = append(r.Steps, &umbrav1.Step{Kind: kind, State: umbrav1.StepState_STEP_STATE_PENDING})
		}
	})
}

// step does one step of an attempt or of a commit: shows it, bounds it, and says in which step it failed. do returns
// what a person should know when it is done. When the worker's context ends, the step is left as it is.
func (w *worker) step(ctx context.Context, kind umbrav1.StepKind, limit time.Duration, do func(context.Context) (string, error)) error {
	w.showStep(kind, func(s *umbrav1.Step) {
		s.State = umbrav1.StepState_STEP_STATE_RUNNING
		if s.StartTime == nil {
			s.StartTime = timestamppb.New(w.cfg.Clock.Now())
		}
	})
	w.log.Info("step begins", "step", kind.String())
	traced, span := w.span(ctx, kind)
	bounded, cancel := context.WithTimeout(traced, limit)
	defer cancel()
	message, err := do(bounded)
	tracing.End(span, err)
	if err == nil {
		w.showStep(kind, func(s *umbrav1.Step) {
			s.State, s.Message = umbrav1.StepState_STEP_STATE_DONE, message
			s.EndTime = timestamppb.New(w.cfg.Clock.Now())
		})
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if bounded.Err() != nil && errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("not done after %s: %w", limit, err)
	}
	return &stepError{step: kind, err: err}
}

// span begins the span of this host's part in a step of the operation in hand.
func (w *worker) span(ctx context.Context, kind umbrav1.StepKind) (context.Context, trace.Span) {
	a := w.about.Load()
	work := tracing.Work{Pair: w.pair, Epoch: a.GetEpoch(), Operation: a.GetOperation(), TraceParent: a.GetTraceParent()}
	return work.StartStep(ctx, w.cfg.Tracer, strings.TrimPrefix(kind.String(), "STEP_KIND_"))
}

// showStep changes one step of the report. A step that was not planned is added.
func (w *worker) showStep(kind umbrav1.StepKind, change func(*umbrav1.Step)) {
	w.show(func(r *umbrav1.ShadowReport) {
		for _, s := range r.GetSteps() {
			if s.GetKind() == kind {
				change(s)
				return
			}
		}
		s := &umbrav1.Step{Kind: kind}
		change(s)
		r.Steps = append(r.Steps, s)
	})
}

// showStepFailed ends a step as failed.
func (w *worker) showStepFailed(kind umbrav1.StepKind, message string) {
	if kind == umbrav1.StepKind_STEP_KIND_UNSPECIFIED {
		return
	}
	w.showStep(kind, func(s *umbrav1.Step) {
		s.State, s.Message = umbrav1.StepState_STEP_STATE_FAILED, message
		s.EndTime = timestamppb.New(w.cfg.Clock.Now())
	})
}
