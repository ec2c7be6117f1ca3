package embedded

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// core writes what etcd logs, from warnings on, to the process's own log, as warnings. etcd logs errors that pass by
// themselves, at its first start for one; what does not pass reaches whoever uses the client, who can tell whether
// someone must act.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (c *core) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	all := append(append([]zapcore.Field(nil), c.fields...), fields...)
	return &core{log: c.log, fields: all}
}

// intended tells whether a warning is about what this node is on purpose: it listens on nothing, and has no users.
func intended(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed":
		return true
	default:
		return false
	}
}

func (c *core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) && !intended(entry.Message) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	values := zapcore.NewMapObjectEncoder()
	for _, field := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		field.AddTo(values)
	}
	c.log.WarnContext(context.Background(), "embedded etcd", "etcd_level", entry.Level.String(), "etcd_message", entry.Message, "etcd_fields", values.Fields)
	return nil
}

func (c *core) Sync() error { return nil }
