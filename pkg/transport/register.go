package transport

import (
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Handler serves one stream. The stream is over when it returns. An error that is no gRPC status becomes one: DATA_LOSS for
// ErrFrame, UNKNOWN for the rest.
type Handler func(*ShadowStream) error

// Register adds the replication method to a server, which should have ServerOptions.
func Register(srv grpc.ServiceRegistrar, h Handler) {
	serve := func(_ any, stream grpc.ServerStream) error {
		return serveStream(stream, h)
	}
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: methodName, Handler: serve, ServerStreams: true, ClientStreams: true}},
		Metadata:    "umbra/v1/replication.proto",
	}, nil)
}

// serveStream runs the handler, with the stage that verifies beside it. That stage is not waited for: it may be inside
// gRPC's RecvMsg, which returns only once this function has.
func serveStream(stream grpc.ServerStream, h Handler) error {
	s := &ShadowStream{grpc: stream, ready: make(chan Received, readyMax), done: make(chan struct{})}
	defer close(s.done)
	go s.verify()
	err := h(s)
	if errors.Is(err, ErrFrame) {
		return status.Error(codes.DataLoss, err.Error())
	}
	if err != nil {
		if _, ok := status.FromError(err); !ok {
			return status.Error(codes.Unknown, fmt.Sprintf("replication: %v", err))
		}
	}
	return err
}
