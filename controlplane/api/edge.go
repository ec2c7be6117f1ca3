package api

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/telemetry"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// edge is what every call passes through: the one place where requests are checked against their schema, panics end,
// errors become statuses, and calls are logged.
type edge struct {
	validator protovalidate.Validator
	clock     clock.Clock
	log       *slog.Logger
}

// Interceptors are the options of a server whose services are registered with Register. Other services on the same
// server have their panics and errors handled as well; their requests are not checked.
func Interceptors(deps Deps) []grpc.ServerOption {
	e := &edge{validator: protovalidate.GlobalValidator, clock: deps.Clock, log: deps.Log}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(e.unary), grpc.ChainStreamInterceptor(e.stream)}
}

func (e *edge) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	var response any
	about := &subject{}
	about.take(request)
	err := e.call(ctx, info.FullMethod, about, func() (err error) {
		if err := e.check(info.FullMethod, request); err != nil {
			return err
		}
		response, err = handler(ctx, request)
		about.take(response)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (e *edge) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	about := &subject{}
	return e.call(stream.Context(), info.FullMethod, about, func() error {
		return handler(server, &checkedStream{ServerStream: stream, edge: e, method: info.FullMethod, about: about})
	})
}

// checkedStream checks what comes in.
type checkedStream struct {
	grpc.ServerStream
	edge   *edge
	method string
	about  *subject
	begun  bool
}

func (s *checkedStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err
	}
	if !s.begun {
		s.begun = true
		s.about.take(message)
	}
	return s.edge.check(s.method, message)
}

// check validates a request of our own services against its schema.
func (e *edge) check(method string, request any) error {
	message, ok := request.(proto.Message)
	if !ok || !ownService(method) {
		return nil
	}
	return validate(e.validator, message, "")
}

func ownService(method string) bool {
	for _, service := range []string{"FailoverService", "ProtectionService", "HostService", "IdentityService", "AuditService"} {
		if strings.HasPrefix(method, "/umbra.v1."+service+"/") {
			return true
		}
	}
	return false
}

// call runs a call, and sees to its end.
func (e *edge) call(ctx context.Context, method string, about *subject, run func() error) error {
	begin := e.clock.Now()
	err := recovered(run)
	if err != nil && (ownService(method) || !isStatus(err)) {
		err = leftOver(err)
	}
	e.record(ctx, method, about, e.clock.Now().Sub(begin), err)
	return err
}

// recovered runs a call and makes an error of its panic.
func recovered(run func() error) (err error) {
	defer func() {
		if thrown := recover(); thrown != nil {
			err = internal(fmt.Errorf("panic: %v at %s", thrown, debug.Stack()))
		}
	}()
	return run()
}

func isStatus(err error) bool {
	_, ok := status.FromError(err)
	return ok
}

// record logs the end of a call, and says on its span what it was about. What changes pairs is logged by who stores it, so a call that
// went well is not news.
func (e *edge) record(ctx context.Context, method string, about *subject, took time.Duration, err error) {
	level := slog.LevelDebug
	switch status.Code(err) {
	case codes.OK, codes.Canceled:
	case codes.Internal, codes.Unknown, codes.DataLoss:
		level = slog.LevelError
	default:
		level = slog.LevelInfo
	}
	arguments := []any{"method", method, "code", status.Code(err).String(), "took", took}
	if err != nil {
		arguments = append(arguments, "error", err)
	}
	span := trace.SpanFromContext(ctx)
	for _, is := range []struct {
		key   string
		trace attribute.Key
		value string
	}{
		{telemetry.KeyRequestID, tracing.KeyRequestID, about.requestID},
		{telemetry.KeyPair, tracing.KeyPair, about.pair},
		{telemetry.KeyOperation, tracing.KeyOperation, about.operation},
	} {
		if is.value != "" {
			arguments = append(arguments, is.key, is.value)
			span.SetAttributes(is.trace.String(is.value))
		}
	}
	if id := span.SpanContext().TraceID(); id.IsValid() {
		arguments = append(arguments, telemetry.KeyTraceID, id.String())
	}
	e.log.Log(ctx, level, "call ended", arguments...)
}

// subject is what a call is about: the caller's request id, the pair, and the operation.
type subject struct{ requestID, pair, operation string }

// take adds what a message of the call says.
func (s *subject) take(message any) {
	if of, ok := message.(interface{ GetRequestId() string }); ok {
		s.requestID = short(of.GetRequestId())
	}
	if of, ok := message.(interface{ GetDrPairId() string }); ok {
		s.pair = short(of.GetDrPairId())
	}
	if of, ok := message.(interface{ GetName() string }); ok {
		s.named(of.GetName())
	}
	if of, ok := message.(interface{ GetParent() string }); ok {
		s.named(of.GetParent())
	}
	if of, ok := message.(interface{ GetDrPair() *umbrav1.DRPair }); ok {
		s.named(of.GetDrPair().GetName())
	}
	if of, ok := message.(interface{ GetOperation() *umbrav1.Operation }); ok {
		s.named(of.GetOperation().GetName())
		s.named(of.GetOperation().GetDrPair())
	}
}

// named adds what a name of the API stands for.
func (s *subject) named(name string) {
	if pair, found := strings.CutPrefix(name, pairPrefix); found {
		s.pair = short(pair)
	}
	if operation, found := strings.CutPrefix(name, operationPrefix); found {
		s.operation = short(operation)
	}
}

// subjectBytesMax is how long a caller's words may be that are put in the log.
const subjectBytesMax = 128

func short(words string) string { return words[:min(len(words), subjectBytesMax)] }
