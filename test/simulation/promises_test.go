package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// table is what each state allows, by hand, from the documentation.
var table = map[umbrav1.DRPairState][]umbrav1.DRPairAction{
	umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING:        {actFailover, actRestart, actPause, actUpdate, actDelete},
	umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED: {actFailover, actRestart, actResume, actUpdate, actDelete},
	umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_ERROR:     {actFailover, actRestart, actUpdate, actDelete},
	umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER:        {actChange, actCommit, actUpdate},
	umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED:          {actDelete},
}

// judge waits for rest and checks every promise.
func (w *world) judge(ctx context.Context, before *umbrav1.DRPair, p plan, answers [][]answer) error {
	s := w.subject
	if err := w.onceEach(p, answers); err != nil {
		return err
	}
	pair, err := w.settle(ctx, s.history.version())
	if err != nil {
		return err
	}
	if pair == nil {
		return w.gone(ctx, p, answers)
	}
	state := pair.GetState()
	count(&w.counts.states, strings.TrimPrefix(state.String(), "DR_PAIR_STATE_"))
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	s.committed = state == umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED
	return errors.Join(
		w.eventually(ctx, func() error { return w.allows(ctx, state) }),
		w.operationsMatch(ctx),
		w.newest(p, answers, points),
		w.nothingLate(pair),
		w.frozen(pair, points),
		w.comparePoints(ctx, pair, points),
		w.eventually(ctx, func() error { return w.servers(ctx, pair) }),
		w.eventually(ctx, func() error { return w.leaks(ctx, pair) }),
	)
}

// allows: promise 4. Whether there is a point is told by the shadow host, and that may take a moment.
func (w *world) allows(ctx context.Context, state umbrav1.DRPairState) error {
	pair, err := w.pair(ctx, observer)
	if err != nil || pair == nil {
		return err
	}
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	want := slices.DeleteFunc(slices.Clone(table[state]), func(a umbrav1.DRPairAction) bool { return a == actFailover && len(points) == 0 })
	if got := slices.Sorted(slices.Values(pair.GetAllowedActions())); pair.GetState() != state || !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		return fmt.Errorf("promise 4: %s allows %v, the table says that %s allows %v", pair.GetState(), got, state, want)
	}
	return nil
}

// eventually waits for what follows from a state by itself.
func (w *world) eventually(ctx context.Context, check func() error) error {
	var last error
	for {
		err := check()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		if rest(ctx) != nil {
			return last
		}
	}
}

// onceEach: promise 3, as far as the answers tell it.
func (w *world) onceEach(p plan, answers [][]answer) error {
	for i, q := range p.requests {
		for _, a := range answers[i] {
			name := strings.TrimPrefix(q.action.String(), "DR_PAIR_ACTION_")
			if a.refusal != nil {
				count(&w.counts.requests, name+" refused")
				continue
			}
			count(&w.counts.requests, name)
			if q.action == actPause || q.action == actResume {
				continue
			}
			if first, known := w.subject.requests[q.id]; known && first != a.operation {
				return fmt.Errorf("promise 3: request %s made %s and %s", q.id, first, a.operation)
			}
			w.subject.requests[q.id] = a.operation
		}
	}
	return nil
}

// operationsMatch: promise 3, by what is listed: each acknowledged request has its operation, once, and nothing else was done.
func (w *world) operationsMatch(ctx context.Context) error {
	got, err := w.failover.ListOperations(ctx, &umbrav1.ListOperationsRequest{DrPair: "drPairs/" + w.subject.id, PageSize: 1000})
	if err != nil {
		return fmt.Errorf("listing operations: %w", err)
	}
	listed := map[string]string{}
	for i, op := range got.GetOperations() {
		if twin, twice := listed[op.GetRequestId()]; twice {
			return fmt.Errorf("promise 3: request %s made %s and %s", op.GetRequestId(), twin, op.GetName())
		}
		listed[op.GetRequestId()] = op.GetName()
		if w.subject.requests[op.GetRequestId()] != op.GetName() {
			return fmt.Errorf("promise 3: %s exists, and nobody was told of it", op.GetName())
		}
		if i > 0 && op.GetState() == umbrav1.OperationState_OPERATION_STATE_RUNNING {
			return fmt.Errorf("promise 4: %s runs, and is not the newest", op.GetName())
		}
	}
	if len(listed) != len(w.subject.requests) {
		return fmt.Errorf("promise 3: %d requests were acknowledged, %d operations are listed", len(w.subject.requests), len(listed))
	}
	return nil
}
