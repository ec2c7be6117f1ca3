package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// operationBeat is the most often that mere progress of an operation is sent.
const operationBeat = 500 * time.Millisecond

// WatchOperation sends the operation as it is, at once whenever its stored state changes, at operationBeat while only
// its progress does, and ends after its end. It reads the store each time: an operation changes some ten times.
func (s *failoverService) WatchOperation(request *umbrav1.WatchOperationRequest, stream umbrav1.FailoverService_WatchOperationServer) error {
	ctx := stream.Context()
	changes, reports := s.Cache.Feed().Subscribe(), s.Observed.Pairs().Subscribe()
	defer changes.Close()
	defer reports.Close()
	operation, err := s.storedOperation(ctx, request.GetName())
	if err != nil {
		return err
	}
	beat := s.Clock.NewTicker(operationBeat)
	defer beat.Stop()
	var sent *umbrav1.Operation
	for {
		if now := s.liveOperation(operation); !proto.Equal(now, sent) {
			if err := stream.Send(&umbrav1.WatchOperationResponse{Operation: now}); err != nil {
				return err
			}
			sent = now
		}
		if operation.State != drpair.OperationRunning {
			return nil
		}
		if operation, err = s.nextOperation(ctx, operation, changes, reports, beat); err != nil {
			return err
		}
	}
}

// subscription is a feed's.
type subscription interface {
	C() <-chan struct{}
	Take() []string
}

// nextOperation waits until the operation may look different, and returns it as it is then.
func (s *failoverService) nextOperation(ctx context.Context, last drpair.Operation, changes, reports subscription, beat *time.Ticker) (drpair.Operation, error) {
	reported := false
	for {
		select {
		case <-ctx.Done():
			return drpair.Operation{}, context.Cause(ctx)
		case <-changes.C():
			if !slices.Contains(changes.Take(), last.Pair) {
				continue
			}
			operation, err := s.Store.Operation(ctx, last.ID)
			if errors.Is(err, store.ErrNotFound) {
				err = notFound(typeOperation, operationName(last.ID))
			}
			return operation, err
		case <-reports.C():
			reported = slices.Contains(reports.Take(), last.Pair) || reported
		case <-beat.C:
			if reported {
				return last, nil
			}
		}
	}
}
