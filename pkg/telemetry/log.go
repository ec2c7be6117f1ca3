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
)

// LogFlags are a daemon's flags about its log.
type LogFlags struct {
	Level  slog.Level `help:"Lowest level that is logged: DEBUG, INFO, WARN, ERROR." default:"INFO"`
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

// AboutPair is a log of lines about a pair. now tells the pair's epoch and operation when a line is written, 0 and "" while
// there is none; it is called from any goroutine that logs, and must not log.
func AboutPair(log *slog.Logger, pair string, now func() (epoch uint64, operation string)) *slog.Logger {
	return slog.New(about{log.With(KeyPair, pair).Handler(), now})
}

type about struct {
	slog.Handler
	now func() (uint64, string)
}

func (a about) Handle(ctx context.Context, record slog.Record) error {
	epoch, operation := a.now()
	if epoch != 0 {
		record.AddAttrs(slog.Uint64(KeyEpoch, epoch))
	}
	if operation != "" {
		record.AddAttrs(slog.String(KeyOperation, operation))
	}
	return a.Handler.Handle(ctx, record)
}

func (a about) WithAttrs(attrs []slog.Attr) slog.Handler {
	return about{a.Handler.WithAttrs(attrs), a.now}
}

// WithGroup is without the epoch and the operation: below a group they would be found by nobody.
func (a about) WithGroup(name string) slog.Handler { return a.Handler.WithGroup(name) }
