package transport

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Handler serves one stream. The stream is over when it returns. An error that is no gRPC status becomes one: DATA_LOSS for
// ErrFrame, UNKNOWN for the rest.
type Handler func(*ShadowStream) error

// NewServer makes a server that has the handler serve replication streams, and takes in their data connections where it
// takes in gRPC's. Other services can be registered beside it. The options come after its own and replace them, except for
// the credentials, which count for both kinds of connection.
func NewServer(secure credentials.TransportCredentials, h Handler, options ...grpc.ServerOption) *grpc.Server {
	given := newTickets()
	srv := grpc.NewServer(slices.Concat(serverOptions(), options, []grpc.ServerOption{grpc.Creds(telling{secure, given})})...)
	serve := func(_ any, stream grpc.ServerStream) error { return serveStream(stream, given, h) }
	srv.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: methodName, Handler: serve, ServerStreams: true, ClientStreams: true}},
		Metadata:    "umbra/v1/replication.proto",
	}, nil)
	return srv
}

// serveStream runs the handler, with the stage that verifies beside it. That stage is not waited for: it may be inside
// gRPC's RecvMsg, which returns only once this function has.
func serveStream(stream grpc.ServerStream, given *tickets, h Handler) error {
	ticket, arrived := given.give()
	defer given.withdraw(ticket, arrived)
	if err := stream.SendHeader(metadata.Pairs(ticketKey, string(ticket[:]))); err != nil {
		return fmt.Errorf("naming the data connection: %w", err)
	}
	s := &ShadowStream{grpc: stream, arrived: arrived, ready: make(chan Received, readyMax), done: make(chan struct{})}
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
