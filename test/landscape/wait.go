package landscape

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// poll is how often something is looked at that the API does not stream.
const poll = 200 * time.Millisecond

// WaitHost waits until the host is as done wants it.
func (l *Landscape) WaitHost(ctx context.Context, id string, done func(*umbrav1.Host) bool) error {
	var last error
	for {
		answer, err := l.Hosts.GetHost(ctx, &umbrav1.GetHostRequest{Name: "hosts/" + id})
		if err == nil && done(answer.GetHost()) {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for host %s: %w", id, errors.Join(context.Cause(ctx), last))
		case <-time.After(poll):
		}
	}
}

// WaitPair watches the pair until it is as done wants it, and returns it. A control plane that goes away meanwhile is
// dialled again.
func (l *Landscape) WaitPair(ctx context.Context, id string, done func(*umbrav1.DRPair) bool) (*umbrav1.DRPair, error) {
	var last *umbrav1.DRPair
	for {
		pair, err := l.watchPair(ctx, id, &last, done)
		if err == nil {
			return pair, nil
		}
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return nil, fmt.Errorf("watching pair %s, last seen as %s: %w", id, protojson.Format(last), err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
	}
}

func (l *Landscape) watchPair(ctx context.Context, id string, last **umbrav1.DRPair, done func(*umbrav1.DRPair) bool) (*umbrav1.DRPair, error) {
	stream, err := l.Failover.WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/" + id}})
	if err != nil {
		return nil, err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		pair := message.GetDrPair()
		if pair == nil || message.GetKind() == umbrav1.WatchKind_WATCH_KIND_DELETED {
			continue
		}
		*last = pair
		if done(pair) {
			return pair, nil
		}
	}
}

// WaitState waits until the pair is in the state.
func (l *Landscape) WaitState(ctx context.Context, id string, state umbrav1.DRPairState) (*umbrav1.DRPair, error) {
	return l.WaitPair(ctx, id, func(pair *umbrav1.DRPair) bool { return pair.GetState() == state })
}

// WaitOperation watches the operation to its end and returns it.
func (l *Landscape) WaitOperation(ctx context.Context, name string) (*umbrav1.Operation, error) {
	stream, err := l.Failover.WatchOperation(ctx, &umbrav1.WatchOperationRequest{Name: name})
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", name, err)
	}
	var last *umbrav1.Operation
	for {
		message, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("watching %s, last seen as %s: %w", name, protojson.Format(last), err)
		}
		last = message.GetOperation()
		if last.GetState() != umbrav1.OperationState_OPERATION_STATE_RUNNING {
			return last, nil
		}
	}
}

// Points lists the pair's recovery points, newest first.
func (l *Landscape) Points(ctx context.Context, id string) ([]*umbrav1.RecoveryPoint, error) {
	var points []*umbrav1.RecoveryPoint
	request := &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/" + id, PageSize: 1000}
	for {
		answer, err := l.Failover.ListRecoveryPoints(ctx, request)
		if err != nil {
			return nil, fmt.Errorf("listing the recovery points of %s: %w", id, err)
		}
		points = append(points, answer.GetRecoveryPoints()...)
		if request.PageToken = answer.GetNextPageToken(); request.GetPageToken() == "" {
			return points, nil
		}
	}
}
