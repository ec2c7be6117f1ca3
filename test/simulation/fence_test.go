package simulation_test

import (
	"context"
	"fmt"
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// fenceWith lets bytes reach the store again when the plan asks for what replicates anew, or ends the pair. It tells whether the plan
// asks for a failover, and for nothing that undoes it.
func (w *world) fenceWith(p plan) (failover bool) {
	asked := func(action umbrav1.DRPairAction) bool {
		return slices.ContainsFunc(p.requests, func(q request) bool { return q.action == action })
	}
	if asked(actRestart) || asked(actDelete) {
		w.shadow.fenced.Store(false)
		return false
	}
	return asked(actFailover)
}

// fenceOnceStopped waits until the API says that replication has stopped completely. From then on no byte may reach the store. It gives
// up when no failover runs: all were refused, or it is over.
func (w *world) fenceOnceStopped(ctx context.Context) {
	for ctx.Err() == nil {
		pair, err := w.pair(ctx, observer)
		if pair == nil || err != nil || pair.GetState() != umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_PROCESSING {
			return
		}
		bounded, stop := context.WithTimeout(ctx, callMax)
		got, err := w.failover.GetOperation(bounded, &umbrav1.GetOperationRequest{Name: pair.GetCurrentOperation()})
		stop()
		if err == nil && slices.ContainsFunc(got.GetOperation().GetSteps(), func(s *umbrav1.Step) bool {
			return s.GetKind() == umbrav1.StepKind_STEP_KIND_STOP_REPLICATION && s.GetState() == umbrav1.StepState_STEP_STATE_DONE
		}) {
			w.shadow.fenced.Store(true)
			return
		}
		_ = rest(ctx) // the loop sees it
	}
}

// nothingLate: promise 2, at the store: since replication was told to have stopped, nothing was written for it.
func (w *world) nothingLate(pair *umbrav1.DRPair) error {
	switch pair.GetState() {
	case umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER, umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED, umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR:
		w.shadow.fenced.Store(true)
	}
	if late := w.shadow.late.Swap(nil); late != nil {
		return fmt.Errorf("promise 2: the store came to %q after replication had stopped; the pair is %s", *late, pair.GetState())
	}
	return nil
}
