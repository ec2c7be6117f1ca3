package telemetry

import (
	"context"
	"io"
	"log/slog"
)

// The keys of what a line is about. Every line that is about one of these has it, and has it under this key.
const (
	KeyPair      = "pair"
	KeyEpoch     = "epoch"
	KeyOperation = "operation"
	KeyHost      = "host"
	KeyStep      = "step"
	KeyRequestID = "request_id"
	KeyTraceID   = "trace_id"
)

// LogFlags are a daemon's flags about its log.
type LogFlags struct {
	Level  slog.Level `type:"level" help:"Lowest level that is logged: DEBUG, INFO, WARN, ERROR." default:"INFO"`
	Format string     `help:"json, or text for reading by eye." enum:"json,text" default:"json"`
}

// New is a log that writes a line for each event to w.
func (f LogFlags) New(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.Level}
	if f.Format == "text" {
		return slog.New(slog.NewTextHandler(w, options))
	}
	return slog.New(slog.NewJSONHandler(w, options))
}

// Subject is what is in hand for a pair. What there is none of is 0 or "".
type Subject struct {
	Epoch     uint64
	Operation string
	TraceID   string
}

// AboutPair is a log of lines about a pair. now tells what is in hand when a line is written; it is called from any goroutine that
// logs, and must not log.
func AboutPair(log *slog.Logger, pair string, now func() Subject) *slog.Logger {
	return slog.New(about{log.With(KeyPair, pair).Handler(), now})
}

type logKey struct{}

// For is ctx for work that log's lines are about. Who does a part of it and logs with From says the same.
func For(ctx context.Context, log *slog.Logger) context.Context {
	return context.WithValue(ctx, logKey{}, log)
}

// From is the log of the work that ctx is for, or the other one if it is for none in particular.
func From(ctx context.Context, otherwise *slog.Logger) *slog.Logger {
	if log, ok := ctx.Value(logKey{}).(*slog.Logger); ok {
		return log
	}
	return otherwise
}

type about struct {
	slog.Handler
	now func() Subject
}

func (a about) Handle(ctx context.Context, record slog.Record) error {
	in := a.now()
	if in.Epoch != 0 {
		record.AddAttrs(slog.Uint64(KeyEpoch, in.Epoch))
	}
	if in.Operation != "" {
		record.AddAttrs(slog.String(KeyOperation, in.Operation))
	}
	if in.TraceID != "" {
		record.AddAttrs(slog.String(KeyTraceID, in.TraceID))
	}
	return a.Handler.Handle(ctx, record)
}

func (a about) WithAttrs(attrs []slog.Attr) slog.Handler {
	return about{a.Handler.WithAttrs(attrs), a.now}
}

// WithGroup is without the epoch and the operation: below a group they would be found by nobody.
func (a about) WithGroup(name string) slog.Handler { return a.Handler.WithGroup(name) }
