package replicate

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// showsTraffic looks whether the pair's cycles are in the figures.
func (r *rig) showsTraffic() {
	r.t.Helper()
	f := r.replicator.shared.figures
	read, sent := testutil.ToFloat64(f.read.WithLabelValues(testPair)), testutil.ToFloat64(f.sent.WithLabelValues(testPair))
	if read == 0 || sent == 0 || sent > read {
		r.t.Errorf("the figures say that %v bytes were read and %v sent", read, sent)
	}
}

func TestFiguresOfAPairGoWithIt(t *testing.T) {
	f := newFigures()
	before := series(t, f)
	f.of("p").read.Add(1)
	f.cycled(t.Context(), "p", kindIncrement, 1, nil)
	if during := series(t, f); during != before+3 {
		t.Errorf("a pair has %d series", during-before)
	}
	f.forget("p")
	if after := series(t, f); after != before {
		t.Errorf("%d series remain of a pair that is gone", after-before)
	}
}

func series(t *testing.T, f *figures) int {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(f.collectors()...)
	n, err := testutil.GatherAndCount(registry)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
