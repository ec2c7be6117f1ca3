package ledger

import (
	"maps"
	"testing"
	"time"
)

func TestLatenciesTravelInALineAndTellQuantiles(t *testing.T) {
	sent := Latencies{}
	for range 98 {
		sent.Add(time.Millisecond)
	}
	sent.Add(20 * time.Millisecond)
	sent.Add(0)
	got, ok := ParseLatencies(sent.Line() + "\r")
	if !ok || !maps.Equal(got, sent) || got.Count() != 100 {
		t.Fatalf("%v came as %v, %v", sent, got, ok)
	}
	got.Merge(sent)
	for q, want := range map[float64]time.Duration{0.001: time.Microsecond, 0.5: time.Millisecond, 0.99: time.Millisecond, 1: 20 * time.Millisecond} {
		if found := got.Quantile(q); found < want*97/100 || found > want*103/100 {
			t.Errorf("quantile %g is %v, want %v", q, found, want)
		}
	}
	if (Latencies{}).Quantile(0.5) != 0 {
		t.Error("no writes took some time")
	}
}

func TestNoOtherLineIsTakenForLatencies(t *testing.T) {
	for _, line := range []string{Record(7), Prefix + "took 1:x", Prefix + "took long", "took 1:1"} {
		if got, ok := ParseLatencies(line); ok {
			t.Errorf("%q became %v", line, got)
		}
	}
}
