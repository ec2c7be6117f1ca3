package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/access"
	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// mutation is what the requests have in common that change a pair.
type mutation interface {
	proto.Message
	GetRequestId() string
}

// requestKey names the request, so that a repetition of it finds what the first one led to.
func (d *Deps) requestKey(ctx context.Context, request mutation) (store.RequestKey, error) {
	if request.GetRequestId() == "" {
		return store.RequestKey{}, nil
	}
	anonymous := proto.Clone(request)
	field := anonymous.ProtoReflect().Descriptor().Fields().ByName("request_id")
	anonymous.ProtoReflect().Clear(field)
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(anonymous)
	if err != nil {
		return store.RequestKey{}, fmt.Errorf("take the fingerprint of the request: %w", err)
	}
	key := store.RequestKey{ID: request.GetRequestId(), Fingerprint: sha256.Sum256(encoded)}
	key.Method, _ = grpc.Method(ctx)
	key.Caller = access.From(ctx).Name
	return key, nil
}

// repeated finds the operation that an earlier request with this key led to, whatever became of the pair since.
func (d *Deps) repeated(ctx context.Context, key store.RequestKey) (*umbrav1.Operation, error) {
	first, found, err := d.Store.Request(ctx, key)
	if err != nil || !found || first.Operation == "" {
		return nil, err
	}
	operation, err := d.Store.Operation(ctx, first.Operation)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(typeOperation, operationName(first.Operation))
	}
	if err != nil {
		return nil, err
	}
	return d.liveOperation(operation), nil
}

// repeatedPair finds the pair that an earlier request with this key was about, as it is now; nil if there was none.
func (d *Deps) repeatedPair(ctx context.Context, key store.RequestKey) (*umbrav1.DRPair, error) {
	first, found, err := d.Store.Request(ctx, key)
	if err != nil || !found {
		return nil, err
	}
	entry, err := d.storedPair(ctx, first.Pair, "")
	if err != nil {
		return nil, err
	}
	return d.pair(entry.Record), nil
}

// once carries out a request unless find finds what an earlier one with the same key led to. The same request may
// arrive twice at the same moment: then the one that loses is refused for what the winner did, and finds that.
func once[T any](find, act func() (*T, error)) (*T, error) {
	if first, err := find(); err != nil || first != nil {
		return first, err
	}
	done, err := act()
	if err == nil {
		return done, nil
	}
	if first, findErr := find(); findErr == nil && first != nil {
		return first, nil
	}
	return nil, err
}

// operate carries out a request that makes an operation, once for its key, and returns that.
func (d *Deps) operate(ctx context.Context, request mutation, act func(store.RequestKey) (*umbrav1.Operation, error)) (*umbrav1.Operation, error) {
	key, err := d.requestKey(ctx, request)
	if err != nil {
		return nil, err
	}
	return once(
		func() (*umbrav1.Operation, error) { return d.repeated(ctx, key) },
		func() (*umbrav1.Operation, error) { return act(key) })
}

// alter carries out a request that makes no operation, once for its key, and returns the pair.
func (d *Deps) alter(ctx context.Context, request mutation, act func(store.RequestKey) (*umbrav1.DRPair, error)) (*umbrav1.DRPair, error) {
	key, err := d.requestKey(ctx, request)
	if err != nil {
		return nil, err
	}
	return once(
		func() (*umbrav1.DRPair, error) { return d.repeatedPair(ctx, key) },
		func() (*umbrav1.DRPair, error) { return act(key) })
}

// start has the engine begin an operation on a pair.
func (d *Deps) start(ctx context.Context, pair, etag string, key store.RequestKey, event func(drpair.Request) drpair.Event) (*umbrav1.Operation, error) {
	record, err := d.Engine.Request(ctx, reconcile.Request{
		Pair: pair, ETag: etag, Key: key,
		Event: func(operationID string) drpair.Event {
			return event(drpair.Request{OperationID: operationID, RequestID: key.ID, TraceParent: tracing.TraceParent(ctx)})
		},
	})
	if err != nil {
		return nil, pairError(pair, err)
	}
	if record.Operation == nil {
		return nil, internal(fmt.Errorf("the request on pair %s led to no operation", pair))
	}
	return d.liveOperation(*record.Operation), nil
}

// storedPair reads the pair that a request names, and checks the etag that the request may have.
func (d *Deps) storedPair(ctx context.Context, id, etag string) (store.Entry, error) {
	entry, err := d.Store.Pair(ctx, id)
	if err == nil && etag != "" && etag != store.ETag(entry.Record.Pair) {
		err = reconcile.ErrETag
	}
	return entry, pairError(id, err)
}
