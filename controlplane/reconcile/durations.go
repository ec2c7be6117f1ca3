package reconcile

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// Bounds of the histogram in seconds: an operation takes from a second to the hours of a resync.
var operationBuckets = []float64{1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600, 6 * 3600, 24 * 3600}

// newDurations is how long operations took whose end this engine has stored. Every kind and outcome is there from the
// start, so that the first one is a rise.
func newDurations() *prometheus.HistogramVec {
	durations := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "umbra_operation_duration_seconds", Buckets: operationBuckets,
		Help: "How long operations took that ended here, by kind and outcome. Each is counted by the control plane that stored its end.",
	}, []string{"kind", "outcome"})
	for _, kind := range drpair.OperationKinds {
		for _, outcome := range []drpair.OperationState{drpair.OperationSucceeded, drpair.OperationFailed, drpair.OperationCancelled} {
			durations.WithLabelValues(string(kind), string(outcome))
		}
	}
	return durations
}

// Durations are figures of the operations whose ends this engine has stored.
func (e *Engine) Durations() *prometheus.HistogramVec { return e.durations }

// ended are the operations that a change ends.
func ended(before drpair.Record, change drpair.Change) []*drpair.Operation {
	var over []*drpair.Operation
	if change.Superseded != nil {
		over = append(over, change.Superseded)
	}
	if op := change.Operation; op != nil && op.State != drpair.OperationRunning {
		old := before.Operation
		if old == nil || old.ID != op.ID || old.State == drpair.OperationRunning {
			over = append(over, op)
		}
	}
	return over
}

// noteEnds measures and traces the operations that a stored change has ended.
func (e *Engine) noteEnds(before drpair.Record, change drpair.Change) {
	for _, op := range ended(before, change) {
		e.durations.WithLabelValues(string(op.Kind), string(op.State)).Observe(op.EndTime.Sub(op.CreateTime).Seconds())
		traceOperation(e.Tracer, op)
	}
}
