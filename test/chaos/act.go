package chaos

import (
	"context"
	"math/rand/v2"
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// act is one thing that an operator does, from the request to what was wanted of it.
type act struct {
	name   string
	weight int
	// needs is the action that the pair must allow; unspecified for what needs no request.
	needs umbrav1.DRPairAction
	// in are the states in which it is done.
	in []umbrav1.DRPairState
	// mainRuns says that the user of the main server keeps it running meanwhile, shadowRuns that of the shadow server.
	mainRuns, shadowRuns bool
	do                   func(ctx context.Context, w *world, dice *rand.Rand) error
}

// A wait is long compared with what is waited for: nothing is timed here.
const (
	none        = umbrav1.DRPairState_DR_PAIR_STATE_UNSPECIFIED // no pair
	replicating = umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING
	failedOver  = umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER
	failError   = umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR
	committed   = umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED
)

func acts() []act {
	return []act{
		{name: "protect", weight: 1, in: states(none), mainRuns: true, do: protect},
		{name: "replicate", weight: 5, in: states(replicating), mainRuns: true, do: replicate},
		{name: "copy", weight: 2, in: states(replicating), mainRuns: true, do: copyDisks},
		{name: "pause", weight: 1, needs: umbrav1.DRPairAction_DR_PAIR_ACTION_PAUSE_REPLICATION, in: states(replicating), mainRuns: true, do: pause},
		{
			name: "restart", weight: 1, needs: umbrav1.DRPairAction_DR_PAIR_ACTION_RESTART_REPLICATION,
			in: states(replicating, failError), mainRuns: true, do: restart,
		},
		{name: "failover", weight: 5, needs: umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER, in: states(replicating, failError), do: failover},
		{name: "change", weight: 4, needs: umbrav1.DRPairAction_DR_PAIR_ACTION_CHANGE_RECOVERY_POINT, in: states(failedOver), do: change},
		{name: "commit", weight: 2, needs: umbrav1.DRPairAction_DR_PAIR_ACTION_COMMIT_FAILOVER, in: states(failedOver), shadowRuns: true, do: commit},
		// It breaks hosts itself, so it is never drawn together with a fault.
		{name: "return", in: states(failedOver), do: mainReturns},
		{name: "delete", weight: 1, needs: umbrav1.DRPairAction_DR_PAIR_ACTION_DELETE, in: states(replicating, failError, committed), do: remove},
	}
}

func states(some ...umbrav1.DRPairState) []umbrav1.DRPairState { return some }

// choose draws an act among those that suit the pair, or takes the one that is named.
func choose(name string, pair *umbrav1.DRPair, dice *rand.Rand) (act, bool) {
	var fitting []act
	total := 0
	for _, a := range acts() {
		if !slices.Contains(a.in, pair.GetState()) || a.needs != 0 && !slices.Contains(pair.GetAllowedActions(), a.needs) {
			continue
		}
		if a.name == name {
			return a, true
		}
		fitting = append(fitting, a)
		total += a.weight
	}
	if total == 0 || name != "" {
		return act{}, false
	}
	at := dice.IntN(total)
	for _, a := range fitting {
		if at -= a.weight; at < 0 {
			return a, true
		}
	}
	return act{}, false
}
