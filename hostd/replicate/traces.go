package replicate

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const spanCycle = "replication cycle"

// work is what is assigned, as traces have it.
func (w *worker) work() tracing.Work {
	a := w.desired.current()
	return tracing.Work{Pair: w.pair, Epoch: a.GetEpoch(), Operation: a.GetOperation(), TraceParent: a.GetTraceParent()}
}

// stepSpan begins the span of this host's part in a step of the operation.
func (w *worker) stepSpan(ctx context.Context, step string) (context.Context, trace.Span) {
	return w.work().StartStep(ctx, w.cfg.Tracer, step)
}

// cycleSpan begins the span of a cycle. Until the first point is stored, cycles belong to the request that asked for it: the one
// that made the pair, or a Restart Replication. After that each is a trace of its own, since there is no end of them.
func (w *worker) cycleSpan(ctx context.Context, kind string) (context.Context, trace.Span) {
	is := trace.WithAttributes(tracing.KeyKind.String(kind))
	if w.phaseResting() == umbrav1.MainPhase_MAIN_PHASE_REPLICATING {
		return w.work().StartAlone(ctx, w.cfg.Tracer, spanCycle, is)
	}
	return w.work().StartIn(ctx, w.cfg.Tracer, "RESYNCHRONIZE", spanCycle, is)
}
