package chaos

import (
	"context"
	"fmt"
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	actFailover = umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER
	actRestart  = umbrav1.DRPairAction_DR_PAIR_ACTION_RESTART_REPLICATION
	actChange   = umbrav1.DRPairAction_DR_PAIR_ACTION_CHANGE_RECOVERY_POINT
	actCommit   = umbrav1.DRPairAction_DR_PAIR_ACTION_COMMIT_FAILOVER
	actPause    = umbrav1.DRPairAction_DR_PAIR_ACTION_PAUSE_REPLICATION
	actUpdate   = umbrav1.DRPairAction_DR_PAIR_ACTION_UPDATE
	actDelete   = umbrav1.DRPairAction_DR_PAIR_ACTION_DELETE
)

// table is what the states allow in which a pair comes to rest: written down here once more, from the documentation.
var table = map[umbrav1.DRPairState][]umbrav1.DRPairAction{
	replicating: {actFailover, actRestart, actPause, actUpdate, actDelete},
	failError:   {actFailover, actRestart, actUpdate, actDelete},
	failedOver:  {actChange, actCommit, actUpdate},
	committed:   {actDelete},
}

// checkState: the pair is at rest, allows what the table says, and its last operation has ended.
func checkState(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil || pair == nil {
		return err
	}
	return eventually(ctx, eventualMax, func(ctx context.Context) error {
		pair, err := w.pair(ctx)
		if err != nil {
			return err
		}
		allowed, known := table[pair.GetState()]
		if !known {
			return fmt.Errorf("the state is %v", pair.GetState())
		}
		if got := slices.Sorted(slices.Values(pair.GetAllowedActions())); !slices.Equal(got, slices.Sorted(slices.Values(allowed))) {
			return fmt.Errorf("%v allows %v, the table says %v", pair.GetState(), got, allowed)
		}
		name := pair.GetCurrentOperation()
		if name == "" {
			return nil
		}
		answer, err := w.Failover.GetOperation(ctx, &umbrav1.GetOperationRequest{Name: name})
		if err != nil {
			return err
		}
		if op := answer.GetOperation(); op.GetState() == umbrav1.OperationState_OPERATION_STATE_RUNNING {
			return fmt.Errorf("%w in state %v: %v", errForEver, pair.GetState(), op)
		}
		return nil
	})
}
