package main

import (
	"context"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/umbra-dr/umbra/controlplane/registry"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// retryDelay is when a caller that was refused should try again.
const retryDelay = time.Second

// whileAlive refuses calls, and ends streams, while this control plane does not hold its lease: what it knows may be old,
// and there may be another one that knows better. Health checks fail with it, so that a load balancer turns elsewhere.
// alive is a context that ends when the lease is lost.
func whileAlive(alive func() context.Context) []grpc.ServerOption {
	unary := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if alive().Err() != nil {
			return nil, notAlive()
		}
		return handler(ctx, request)
	}
	stream := func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		held := alive()
		if held.Err() != nil {
			return notAlive()
		}
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		stop := context.AfterFunc(held, cancel)
		defer stop()
		err := handler(server, &boundStream{ServerStream: stream, ctx: ctx})
		if held.Err() != nil && stream.Context().Err() == nil {
			return notAlive()
		}
		return err
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}

// boundStream is a stream with a context of its own.
type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *boundStream) Context() context.Context { return s.ctx }

func notAlive() error {
	made := status.New(codes.Unavailable, registry.ErrLost.Error()+": ask another one, or try again")
	reason := strings.TrimPrefix(umbrav1.ErrorReason_ERROR_REASON_INTERNAL.String(), "ERROR_REASON_")
	detailed, err := made.WithDetails(&errdetails.ErrorInfo{Domain: "umbra", Reason: reason},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryDelay)})
	if err != nil {
		return made.Err()
	}
	return detailed.Err()
}
