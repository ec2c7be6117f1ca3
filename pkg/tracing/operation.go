package tracing

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Operation is where an operation is in the traces. Its span, and those of its steps, have ids that are derived from its own: so any
// process, in any life, knows the spans that others make or will make, and a span that is sent twice is the same twice.
type Operation struct {
	id     string
	parent trace.SpanContext // of the call that asked for it; not valid if that had none
	self   trace.SpanContext
}

// OfOperation is where the operation is whose call had that W3C traceparent. Without one the operation is a trace of its own.
func OfOperation(id, traceParent string) Operation {
	o := Operation{id: id, parent: parse(traceParent)}
	inside := trace.SpanContextConfig{TraceID: o.parent.TraceID(), TraceFlags: o.parent.TraceFlags(), SpanID: spanID(id), Remote: true}
	if !o.parent.IsValid() {
		inside.TraceID, inside.TraceFlags = traceID(id), trace.FlagsSampled
	}
	o.self = trace.NewSpanContext(inside)
	return o
}

// TraceParent names the operation's span, for hosts that work for it.
func (o Operation) TraceParent() string {
	return TraceParent(trace.ContextWithSpanContext(context.Background(), o.self))
}

// TraceID is the trace that the operation is in.
func (o Operation) TraceID() string { return o.self.TraceID().String() }

// Start begins the operation's own span.
func (o Operation) Start(tracer trace.Tracer, kind string, at time.Time, options ...trace.SpanStartOption) trace.Span {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), o.parent)
	_, span := tracer.Start(withIDs(ctx, o.self), name(kind), append(options, trace.WithTimestamp(at))...)
	return span
}

// StartStep begins the span of a step of the operation, as the control plane sees it. What hosts do for the step lies within.
func (o Operation) StartStep(tracer trace.Tracer, kind string, at time.Time, options ...trace.SpanStartOption) trace.Span {
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), o.self)
	_, span := tracer.Start(withIDs(ctx, stepOf(o.id, o.self, kind)), name(kind), append(options, trace.WithTimestamp(at))...)
	return span
}

// Work is what a host has to do for a pair, as its assignment says. TraceParent names the operation's span, or what else it belongs
// to. Operation may be empty.
type Work struct {
	Pair                   string
	Epoch                  uint64
	Operation, TraceParent string
}

// StartStep begins the span of this host's part in a step of the operation.
func (w Work) StartStep(ctx context.Context, tracer trace.Tracer, kind string) (context.Context, trace.Span) {
	return w.StartIn(ctx, tracer, kind, name(kind))
}

// StartIn begins a span of that name for a part of a step of the operation. Without an operation it lies right under what the work
// belongs to.
func (w Work) StartIn(ctx context.Context, tracer trace.Tracer, kind, spanName string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	outer := parse(w.TraceParent)
	if outer.IsValid() && w.Operation != "" {
		outer = stepOf(w.Operation, outer, kind)
	}
	return tracer.Start(trace.ContextWithRemoteSpanContext(ctx, outer), spanName, append(options, About(w.Pair, w.Epoch, w.Operation))...)
}

// StartAlone begins a span that is a trace of its own.
func (w Work) StartAlone(ctx context.Context, tracer trace.Tracer, spanName string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return tracer.Start(ctx, spanName, append(options, About(w.Pair, w.Epoch, ""), trace.WithNewRoot())...)
}

// StartUnder begins a span under the one that a traceparent names.
func StartUnder(ctx context.Context, tracer trace.Tracer, traceParent, spanName string, options ...trace.SpanStartOption) (context.Context, trace.Span) {
	return tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parse(traceParent)), spanName, options...)
}

// name is a kind of operation or step as spans are named: "change recovery point".
func name(kind string) string { return strings.ToLower(strings.ReplaceAll(kind, "_", " ")) }

func stepOf(operation string, self trace.SpanContext, kind string) trace.SpanContext {
	return self.WithSpanID(spanID(operation + "/" + kind))
}

// TraceParent is the W3C traceparent of the span in ctx, or empty.
func TraceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceParentKey]
}

// TraceID is the trace that a traceparent names, or empty.
func TraceID(traceParent string) string {
	if named := parse(traceParent); named.IsValid() {
		return named.TraceID().String()
	}
	return ""
}

const traceParentKey = "traceparent"

func parse(traceParent string) trace.SpanContext {
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{traceParentKey: traceParent})
	return trace.SpanContextFromContext(ctx)
}

func traceID(name string) (id trace.TraceID) {
	sum := sha256.Sum256([]byte("trace/" + name))
	copy(id[:], sum[:])
	return id
}

func spanID(name string) (id trace.SpanID) {
	sum := sha256.Sum256([]byte("span/" + name))
	copy(id[:], sum[:])
	return id
}

type idsKey struct{}

// withIDs has the next span that is begun with the context take those ids. The context is not for the spans below it.
func withIDs(ctx context.Context, ids trace.SpanContext) context.Context {
	return context.WithValue(ctx, idsKey{}, ids)
}

// generator gives spans the ids that the context says, and random ones otherwise.
type generator struct{}

func (generator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	if ids, ok := ctx.Value(idsKey{}).(trace.SpanContext); ok {
		return ids.TraceID(), ids.SpanID()
	}
	var id trace.TraceID
	for !id.IsValid() {
		fill(id[:])
	}
	return id, newSpanID()
}

func (generator) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if ids, ok := ctx.Value(idsKey{}).(trace.SpanContext); ok {
		return ids.SpanID()
	}
	return newSpanID()
}

func newSpanID() (id trace.SpanID) {
	for !id.IsValid() {
		fill(id[:])
	}
	return id
}

func fill(id []byte) {
	for i := range id {
		id[i] = byte(rand.Uint32()) //nolint:gosec // ids of spans are no secrets
	}
}
