package registry

import (
	"context"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/umbra-dr/umbra/controlplane/refusal"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// retryDelay is when a caller that was refused should try again.
const retryDelay = time.Second

// WhileAlive refuses calls, and ends streams, while this control plane does not hold its lease: what it knows may be old,
// and there may be another one that knows better. Health checks fail with it, so that a load balancer turns elsewhere.
func (r *Registry) WhileAlive() []grpc.ServerOption {
	unary := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if r.Alive().Err() != nil {
			return nil, notAlive()
		}
		return handler(ctx, request)
	}
	stream := func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		held := r.Alive()
		if held.Err() != nil {
			return notAlive()
		}
		caller := stream.Context() // taken before the stream, which may be wrapped already, gets another
		ctx, cancel := context.WithCancel(caller)
		defer cancel()
		stop := context.AfterFunc(held, cancel)
		defer stop()
		bound := middleware.WrapServerStream(stream)
		bound.WrappedContext = ctx
		err := handler(server, bound)
		if held.Err() != nil && caller.Err() == nil {
			return notAlive()
		}
		return err
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}

func notAlive() error {
	return refusal.New(codes.Unavailable, umbrav1.ErrorReason_ERROR_REASON_INTERNAL, nil,
		ErrLost.Error()+": ask another one, or try again", &errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
}
