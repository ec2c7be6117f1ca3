package drpair_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// The four columns of the table in docs/architecture.md, by hand, so that the table in the code has something to be
// held against. F failover, R restart replication, C change recovery point, K commit failover.
var documented = map[drpair.State]string{
	drpair.InitialSync:           "FR", // F only with a complete point
	drpair.Replicating:           "FR",
	drpair.Resyncing:             "FR",
	drpair.ReplicationPaused:     "FR",
	drpair.ReplicationError:      "FR",
	drpair.FailoverProcessing:    "",
	drpair.FailoverError:         "FR",
	drpair.FailedOver:            "CK",
	drpair.ChangingRecoveryPoint: "",
	drpair.Committing:            "",
	drpair.Committed:             "",
	drpair.Deleting:              "",
}

var letters = map[drpair.Action]string{
	drpair.ActionFailover: "F", drpair.ActionRestartReplication: "R",
	drpair.ActionChangeRecoveryPoint: "C", drpair.ActionCommitFailover: "K",
}

func TestEveryStateAllowsWhatTheDocumentedTableSays(t *testing.T) {
	for _, state := range drpair.States {
		want, listed := documented[state]
		if !listed {
			t.Errorf("state %s is not in the documented table", state)
		}
		var got string
		for _, action := range drpair.Allowed(drpair.Pair{State: state, HasPoint: true}) {
			got += letters[action]
		}
		if got != want {
			t.Errorf("state %s allows %q, the table says %q", state, got, want)
		}
	}
}

func TestFailoverNeedsACompletePoint(t *testing.T) {
	for _, state := range drpair.States {
		if slices.Contains(drpair.Allowed(drpair.Pair{State: state}), drpair.ActionFailover) {
			t.Errorf("state %s allows a failover without a recovery point", state)
		}
	}
}

// Every action in every state: it is done exactly when Allowed lists it, and a refusal names state and actions.
func TestARequestIsRefusedExactlyWhenItIsNotAllowed(t *testing.T) {
	for _, state := range drpair.States {
		for _, paused := range []bool{false, true} {
			for action, event := range requests("op-1") {
				rec := recordIn(state, paused)
				allowed := drpair.Allowed(rec.Pair)
				change, err := drpair.Apply(rec, event, now)
				if slices.Contains(allowed, action) {
					if err != nil || !change.Changed {
						t.Errorf("%s in %s: changed %v, error %v", action, state, change.Changed, err)
					}
					continue
				}
				var refusal *drpair.NotAllowedError
				if !errors.As(err, &refusal) {
					t.Errorf("%s in %s: got %v, want a refusal", action, state, err)
					continue
				}
				if refusal.State != state || !slices.Equal(refusal.Allowed, allowed) {
					t.Errorf("%s in %s: the refusal says %s, %v", action, state, refusal.State, refusal.Allowed)
				}
			}
		}
	}
}

func TestEveryStateTellsWhatToDoNext(t *testing.T) {
	for _, state := range drpair.States {
		if drpair.NextStep(drpair.Pair{State: state}) == "" {
			t.Errorf("state %s has no next step", state)
		}
	}
}
