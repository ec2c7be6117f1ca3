package reconcile

import (
	"testing"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

func TestAnOperationsEndIsCountedOnce(t *testing.T) {
	now := time.Now()
	running := &drpair.Operation{ID: "1", Kind: drpair.KindFailover, State: drpair.OperationRunning, CreateTime: now}
	cancelled := &drpair.Operation{ID: "1", Kind: drpair.KindFailover, State: drpair.OperationCancelled, CreateTime: now, EndTime: now}
	failed := &drpair.Operation{ID: "1", Kind: drpair.KindFailover, State: drpair.OperationFailed, CreateTime: now, EndTime: now.Add(time.Second)}
	other := &drpair.Operation{ID: "2", Kind: drpair.KindDelete, State: drpair.OperationRunning, CreateTime: now}
	for name, c := range map[string]struct {
		before *drpair.Operation
		change drpair.Change
		want   int
	}{
		"begins":     {nil, drpair.Change{Record: drpair.Record{Operation: running}}, 0},
		"goes on":    {running, drpair.Change{Record: drpair.Record{Operation: running}}, 0},
		"ends":       {running, drpair.Change{Record: drpair.Record{Operation: failed}}, 1},
		"is over":    {failed, drpair.Change{Record: drpair.Record{Operation: failed}}, 0},
		"superseded": {running, drpair.Change{Record: drpair.Record{Operation: other}, Superseded: cancelled}, 1},
	} {
		if got := len(ended(drpair.Record{Operation: c.before}, c.change)); got != c.want {
			t.Errorf("an operation that %s: %d ends", name, got)
		}
	}
}
