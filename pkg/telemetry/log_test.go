package telemetry

import (
	"log/slog"
	"strings"
	"testing"
)

func TestALineSaysWhatItIsAboutAtItsTime(t *testing.T) {
	var out strings.Builder
	var in Subject
	log := AboutPair(LogFlags{Format: "text", Level: slog.LevelInfo}.New(&out), "p", func() Subject { return in })
	log.Debug("too little")
	log.Info("one")
	in = Subject{Epoch: 2, Operation: "op", TraceID: "0af7"}
	log.With(KeyStep, "START").Info("two")
	for i, want := range []string{"level=INFO msg=one pair=p", "level=INFO msg=two pair=p step=START epoch=2 operation=op trace_id=0af7"} {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 2 || !strings.HasSuffix(lines[i], want) {
			t.Errorf("line %d of %q, wanted %q", i, lines, want)
		}
	}
	out.Reset()
	LogFlags{}.New(&out).Info("three")
	if !strings.HasPrefix(out.String(), "{") {
		t.Errorf("by default a line is %q", out.String())
	}
}
