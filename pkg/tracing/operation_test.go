package tracing

import (
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

const calledWith = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// recorded is a tracer, and what it has made.
func recorded(t *testing.T) (trace.Tracer, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(generator{}), sdktrace.WithSpanProcessor(recorder))
	t.Cleanup(func() { _ = provider.Shutdown(t.Context()) }) // it holds nothing
	return provider.Tracer(scope), recorder
}

// lives makes the spans of an operation with one step, and of a host's part in that step.
func live(t *testing.T, id, traceParent string) (operation, step, host sdktrace.ReadOnlySpan) {
	t.Helper()
	tracer, made := recorded(t)
	at := OfOperation(id, traceParent)
	work := Work{Pair: "p", Epoch: 2, Operation: id, TraceParent: at.TraceParent()}
	_, part := work.StartStep(t.Context(), tracer, "FENCE_MAIN")
	part.End() // a host's part is exported before the control plane has begun the span around it
	begin := time.Unix(1000, 0)
	at.StartStep(tracer, "FENCE_MAIN", begin.Add(time.Second)).End(trace.WithTimestamp(begin.Add(2 * time.Second)))
	at.Start(tracer, "FAILOVER", begin).End(trace.WithTimestamp(begin.Add(3 * time.Second)))
	ended := made.Ended()
	return ended[2], ended[1], ended[0]
}

func TestAnOperationIsInTheTraceOfTheCallThatAskedForIt(t *testing.T) {
	operation, step, host := live(t, "op-1", calledWith)
	if got := operation.Parent().SpanID().String(); got != "b7ad6b7169203331" {
		t.Errorf("the operation's span lies under %s", got)
	}
	for _, span := range []sdktrace.ReadOnlySpan{operation, step, host} {
		if got := span.SpanContext().TraceID().String(); got != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s is in trace %s", span.Name(), got)
		}
	}
	if step.Parent().SpanID() != operation.SpanContext().SpanID() || host.Parent().SpanID() != step.SpanContext().SpanID() {
		t.Error("the host's part does not lie within the step, or that not within the operation")
	}
	if operation.Name() != "failover" || step.Name() != "fence main" || host.Name() != "fence main" {
		t.Errorf("the spans are named %q, %q, %q", operation.Name(), step.Name(), host.Name())
	}
	if took := step.EndTime().Sub(step.StartTime()); took != time.Second || step.StartTime().Unix() != 1001 {
		t.Errorf("the step began at %v and took %v", step.StartTime(), took)
	}
}

func TestSpansOfAnOperationHaveTheSameIdsInEveryLife(t *testing.T) {
	for _, traceParent := range []string{calledWith, ""} {
		before, stepBefore, partBefore := live(t, "op-1", traceParent)
		after, stepAfter, partAfter := live(t, "op-1", traceParent)
		if !before.SpanContext().Equal(after.SpanContext()) || !stepBefore.SpanContext().Equal(stepAfter.SpanContext()) {
			t.Error("the same operation has other ids in another life")
		}
		if partBefore.SpanContext().SpanID() == partAfter.SpanContext().SpanID() {
			t.Error("a second try at a step has the id of the first")
		}
		other, _, _ := live(t, "op-2", traceParent)
		if other.SpanContext().SpanID() == before.SpanContext().SpanID() {
			t.Error("two operations have one id")
		}
	}
}

func TestAnOperationOfACallWithoutATraceIsATraceOfItsOwn(t *testing.T) {
	for _, traceParent := range []string{"", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"} {
		operation, _, host := live(t, "op-1", traceParent)
		if operation.Parent().IsValid() || host.SpanContext().TraceID() != operation.SpanContext().TraceID() {
			t.Errorf("with %q the operation has parent %v", traceParent, operation.Parent())
		}
		if TraceID(OfOperation("op-1", traceParent).TraceParent()) != operation.SpanContext().TraceID().String() {
			t.Error("hosts are told of another trace")
		}
	}
}

func TestACallThatIsNotSampledMakesNoSpans(t *testing.T) {
	tracer, made := recorded(t)
	at := OfOperation("op-1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
	at.Start(tracer, "FAILOVER", time.Unix(1000, 0)).End()
	_, part := Work{Operation: "op-1", TraceParent: at.TraceParent()}.StartStep(t.Context(), tracer, "FENCE_MAIN")
	part.End()
	if len(made.Ended()) != 0 {
		t.Errorf("made are %v", made.Ended())
	}
}

func TestWorkWithoutAnOperationLiesUnderWhatItBelongsToOrAlone(t *testing.T) {
	tracer, made := recorded(t)
	work := Work{Pair: "p", Epoch: 1, TraceParent: calledWith}
	within, first := work.StartIn(t.Context(), tracer, "RESYNCHRONIZE", "replication cycle")
	first.End()
	_, later := work.StartAlone(within, tracer, "replication cycle")
	later.End()
	ended := made.Ended()
	if ended[0].Parent().SpanID().String() != "b7ad6b7169203331" || ended[1].Parent().IsValid() {
		t.Errorf("the parents are %v and %v", ended[0].Parent(), ended[1].Parent())
	}
}
