package reconcile

import (
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// retraceFor is how long after its end an operation is traced once more by a control plane that starts: the one that stored the
// end may have died before it had sent the spans. They have the same ids, so they are the same spans.
const retraceFor = time.Minute

// retrace traces the operations that ended a moment ago.
func (e *Engine) retrace() {
	now := e.Clock.Now()
	for _, entry := range e.Records.List() {
		op := entry.Record.Operation
		if op != nil && op.State != drpair.OperationRunning && now.Sub(op.EndTime) < retraceFor {
			traceOperation(e.Tracer, op)
		}
	}
}

// traceOperation makes the spans of an operation that has ended, and of its steps, from what is stored of it. So it matters
// neither which control planes it passed through, nor what became of them.
func traceOperation(tracer trace.Tracer, op *drpair.Operation) {
	at := tracing.OfOperation(op.ID, op.TraceParent)
	about := tracing.About(op.Pair, op.Epoch, op.ID)
	span := at.Start(tracer, string(op.Kind), op.CreateTime, about,
		trace.WithAttributes(tracing.KeyKind.String(string(op.Kind)), tracing.KeyOutcome.String(string(op.State)), tracing.KeyPoint.String(op.Point)))
	for _, step := range op.Steps {
		traceStep(tracer, at, op, step, about)
	}
	if failure := op.Failure; failure != nil && op.State != drpair.OperationSucceeded {
		span.SetStatus(codes.Error, string(failure.Reason)+": "+failure.Message)
	}
	span.End(trace.WithTimestamp(op.EndTime))
}

// traceStep makes the span of a step that has begun.
func traceStep(tracer trace.Tracer, at tracing.Operation, op *drpair.Operation, step drpair.Step, about trace.SpanStartEventOption) {
	if step.StartTime.IsZero() {
		return
	}
	span := at.StartStep(tracer, string(step.Kind), step.StartTime, about,
		trace.WithAttributes(tracing.KeyOutcome.String(string(step.State)), tracing.KeyMessage.String(step.Message)))
	if step.State == drpair.StepFailed {
		span.SetStatus(codes.Error, step.Message)
	}
	end := step.EndTime
	if end.IsZero() { // the operation was cancelled in it
		end = op.EndTime
	}
	span.End(trace.WithTimestamp(end))
}
