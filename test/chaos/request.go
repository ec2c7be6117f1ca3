package chaos

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// errTwice says that one request was carried out twice, or was both accepted and refused.
var errTwice = errors.New("the same request had different answers")

const (
	// retryEvery is how often a client repeats what was not answered.
	retryEvery = 200 * time.Millisecond
	// sentAtOnce is how often each request is sent at the same moment, as by a client that is not sure.
	sentAtOnce = 2
)

type asked = func(ctx context.Context, id string) (*umbrav1.Operation, error)

// submit sends one request several times, repeats what is not answered, and returns the operation that all answers must
// name. Whatever was refused by all is an error.
func (w *world) submit(ctx context.Context, kind umbrav1.OperationKind, id string, ask asked) (*umbrav1.Operation, error) {
	operations := make([]*umbrav1.Operation, sentAtOnce)
	failures := make([]error, sentAtOnce)
	var sending sync.WaitGroup
	for i := range sentAtOnce {
		sending.Go(func() { operations[i], failures[i] = persist(ctx, id, ask) })
	}
	sending.Wait()
	var first *umbrav1.Operation
	for _, operation := range operations {
		switch {
		case operation == nil:
		case first == nil:
			first = operation
		case first.GetName() != operation.GetName():
			return nil, fmt.Errorf("%w: %s and %s", errTwice, first.GetName(), operation.GetName())
		}
	}
	if first == nil {
		return nil, errors.Join(failures...)
	}
	if err := errors.Join(failures...); err != nil {
		return nil, fmt.Errorf("%w: %s and %w", errTwice, first.GetName(), err)
	}
	w.history.requests = append(w.history.requests, request{id: id, operation: first.GetName(), kind: kind})
	return first, nil
}

// persist repeats a request until it is answered.
func persist[T any](ctx context.Context, id string, ask func(context.Context, string) (*T, error)) (*T, error) {
	for {
		answer, err := ask(ctx, id)
		if err == nil {
			return answer, nil
		}
		if !passes(err) || ctx.Err() != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retryEvery):
		}
	}
}

// passes tells whether a client should try again.
func passes(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.Aborted, codes.Canceled:
		return true
	default:
		return false
	}
}

// pair is the pair as it is, nil when there is none.
func (w *world) pair(ctx context.Context) (*umbrav1.DRPair, error) {
	for {
		answer, err := w.Failover.GetDRPair(ctx, &umbrav1.GetDRPairRequest{Name: pairName})
		switch {
		case err == nil:
			return answer.GetDrPair(), nil
		case status.Code(err) == codes.NotFound:
			return nil, nil
		case !passes(err) || ctx.Err() != nil:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retryEvery):
		}
	}
}

// points lists the pair's points, newest first, asking again while the shadow host is away.
func (w *world) points(ctx context.Context) ([]*umbrav1.RecoveryPoint, error) {
	for {
		points, err := w.Points(ctx, pairID)
		if err == nil || !passes(err) || ctx.Err() != nil {
			return points, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(retryEvery):
		}
	}
}

// ended waits for the end of an operation, whatever goes away meanwhile.
func (w *world) ended(ctx context.Context, name string) (*umbrav1.Operation, error) {
	for {
		answer, err := w.Failover.GetOperation(ctx, &umbrav1.GetOperationRequest{Name: name})
		if err != nil && (!passes(err) || ctx.Err() != nil) {
			return nil, fmt.Errorf("asking for %s: %w", name, err)
		}
		if op := answer.GetOperation(); err == nil && op.GetState() != umbrav1.OperationState_OPERATION_STATE_RUNNING {
			return op, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: it is %v", errForEver, answer.GetOperation())
		case <-time.After(retryEvery):
		}
	}
}

// errForEver says that an operation does not end.
var errForEver = errors.New("the operation does not end")
