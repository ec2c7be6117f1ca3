package chaos

import (
	"context"
	"fmt"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// checkOnce: for each acknowledged request there is one operation, there is none besides, and the epoch has risen once for
// each of those that raise it.
func checkOnce(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil || pair == nil {
		return err
	}
	kept, err := w.operations(ctx, pair)
	if err != nil {
		return err
	}
	byRequest := map[string]*umbrav1.Operation{}
	for _, op := range kept {
		if twin := byRequest[op.GetRequestId()]; twin != nil {
			return fmt.Errorf("request %s has operations %s and %s", op.GetRequestId(), twin.GetName(), op.GetName())
		}
		byRequest[op.GetRequestId()] = op
	}
	risen := uint64(0)
	for _, r := range w.history.requests {
		op := byRequest[r.id]
		if op == nil || op.GetName() != r.operation || op.GetKind() != r.kind {
			return fmt.Errorf("request %s was acknowledged as %s, a %v; kept is %v", r.id, r.operation, r.kind, op)
		}
		if raises(r.kind) {
			risen++
		}
	}
	if len(kept) != len(w.history.requests) {
		return fmt.Errorf("%d operations are kept, %d requests were acknowledged", len(kept), len(w.history.requests))
	}
	if pair.GetEpoch() != w.history.epoch+risen {
		return fmt.Errorf("the epoch is %d; it was %d, and %d requests raise it", pair.GetEpoch(), w.history.epoch, risen)
	}
	return nil
}

// operations are those of the pair's present life.
func (w *world) operations(ctx context.Context, pair *umbrav1.DRPair) ([]*umbrav1.Operation, error) {
	var ops []*umbrav1.Operation
	request := &umbrav1.ListOperationsRequest{DrPair: pairName, PageSize: 1000}
	for {
		answer, err := w.Failover.ListOperations(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("listing operations: %w", err)
		}
		for _, op := range answer.GetOperations() {
			if !op.GetCreateTime().AsTime().Before(pair.GetCreateTime().AsTime()) {
				ops = append(ops, op)
			}
		}
		if request.PageToken = answer.GetNextPageToken(); request.GetPageToken() == "" {
			return ops, nil
		}
	}
}
