package chaos

import (
	"context"
	"fmt"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// checkEpoch: no point of an older epoch is of after the moment at which a failover says that replication has stopped.
func checkEpoch(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil || pair == nil {
		return err
	}
	ops, err := w.operations(ctx, pair)
	if err != nil {
		return err
	}
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	for _, op := range ops {
		if op.GetKind() != umbrav1.OperationKind_OPERATION_KIND_FAILOVER || len(op.GetSteps()) == 0 {
			continue
		}
		stop := op.GetSteps()[0]
		if stop.GetKind() != umbrav1.StepKind_STEP_KIND_STOP_REPLICATION || stop.GetState() != umbrav1.StepState_STEP_STATE_DONE {
			continue
		}
		for _, p := range points {
			if p.GetEpoch() < op.GetEpoch() && p.GetCompleteTime().AsTime().After(stop.GetEndTime().AsTime()) {
				return fmt.Errorf("%s, which had stopped replication at %v, and a point of epoch %d: %v",
					op.GetName(), stop.GetEndTime().AsTime(), p.GetEpoch(), p)
			}
		}
	}
	return nil
}

// fenceMax is how long a main host may take, once it is able to act, to hear that its epoch is over and to act.
const fenceMax = 3 * time.Minute

// checkAlone: after a failover the main server does what on_main_return says, and the pair reports it.
func checkAlone(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil {
		return err
	}
	if state := pair.GetState(); state != failedOver && state != committed {
		return w.shadowAbsent(ctx, pair)
	}
	return eventually(ctx, fenceMax, func(ctx context.Context) error {
		pair, err := w.pair(ctx)
		if err != nil {
			return err
		}
		if err := w.fenced(ctx); err != nil {
			return err
		}
		for _, c := range pair.GetConditions() {
			if c.GetType() == "Fenced" && c.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_TRUE {
				return nil
			}
		}
		return fmt.Errorf("the pair does not say that the main server is fenced: %v", pair.GetConditions())
	})
}

// shadowAbsent: while the pair replicates, or after a failover that failed, no shadow server runs.
func (w *world) shadowAbsent(ctx context.Context, pair *umbrav1.DRPair) error {
	if pair == nil {
		return nil // the server of a committed pair is its user's
	}
	return eventually(ctx, fenceMax, func(ctx context.Context) error {
		state, err := w.power(ctx, w.Shadow)
		if err == nil && state != absent {
			err = fmt.Errorf("the pair is %v, and the shadow server is %s", pair.GetState(), state)
		}
		return err
	})
}

// fenced tells whether the main server is as on_main_return wants it.
func (w *world) fenced(ctx context.Context) error {
	state, err := w.power(ctx, w.Main)
	if err != nil || state == "shut off" || state == absent {
		return err
	}
	switch w.history.policy.GetOnMainReturn() {
	case umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING:
		return nil
	case umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK:
		return disconnected(ctx, w.Main)
	default:
		return fmt.Errorf("the main server is %s, and should have been shut down", state)
	}
}

func disconnected(ctx context.Context, h *lab.Host) error {
	xml, err := h.Virsh(ctx, "dumpxml", guest)
	if err != nil {
		return err
	}
	if nics, down := strings.Count(xml, "<interface "), strings.Count(xml, "<link state='down'/>"); nics != down {
		return fmt.Errorf("%d of the main server's %d network interfaces are disconnected", down, nics)
	}
	return nil
}
