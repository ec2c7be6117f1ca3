package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plane answers as the test says. What the control plane really answers is tried in test/simulation.
type plane struct {
	umbrav1.UnimplementedFailoverServiceServer
	socket string

	mu       sync.Mutex
	requests []string // ids of failovers, in the order in which they came
	failover func(attempt int) error
	watch    func(attempt int, stream umbrav1.FailoverService_WatchOperationServer) error
	watches  int
	plan     *umbrav1.FailoverPlan
}

func startPlane(t *testing.T) *plane {
	t.Helper()
	dir, err := os.MkdirTemp("", "umbra") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{socket: filepath.Join(dir, "s"), plan: &umbrav1.FailoverPlan{}}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	umbrav1.RegisterFailoverServiceServer(server, p)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	return p
}

func (p *plane) Failover(_ context.Context, request *umbrav1.FailoverRequest) (*umbrav1.FailoverResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if request.GetValidateOnly() {
		return &umbrav1.FailoverResponse{Plan: p.plan}, nil
	}
	p.requests = append(p.requests, request.GetRequestId())
	if p.failover != nil {
		if err := p.failover(len(p.requests)); err != nil {
			return nil, err
		}
	}
	return &umbrav1.FailoverResponse{Operation: operation(umbrav1.OperationState_OPERATION_STATE_RUNNING)}, nil
}

func (p *plane) WatchOperation(_ *umbrav1.WatchOperationRequest, stream umbrav1.FailoverService_WatchOperationServer) error {
	p.mu.Lock()
	p.watches++
	attempt := p.watches
	p.mu.Unlock()
	return p.watch(attempt, stream)
}

func (p *plane) GetDRPair(context.Context, *umbrav1.GetDRPairRequest) (*umbrav1.GetDRPairResponse, error) {
	return &umbrav1.GetDRPairResponse{DrPair: &umbrav1.DRPair{Name: "drPairs/web", State: umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER}}, nil
}

func operation(state umbrav1.OperationState) *umbrav1.Operation {
	return &umbrav1.Operation{Name: "operations/op-1", DrPair: "drPairs/web", Kind: umbrav1.OperationKind_OPERATION_KIND_FAILOVER, State: state}
}

// ends is a watch that tells the end at once.
func ends(state umbrav1.OperationState) func(int, umbrav1.FailoverService_WatchOperationServer) error {
	return func(_ int, stream umbrav1.FailoverService_WatchOperationServer) error {
		ended := operation(state)
		if state == umbrav1.OperationState_OPERATION_STATE_FAILED {
			ended.Failure = &umbrav1.Failure{
				Reason: umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING, Message: "there is no network front", Side: umbrav1.Side_SIDE_SHADOW,
				Step: umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, PossibleCauses: []string{"It was removed."}, RecommendedActions: []string{"Map it."},
			}
		}
		return stream.Send(&umbrav1.WatchOperationResponse{Operation: ended})
	}
}

func refusal(code codes.Code, reason string) error {
	refused, err := status.New(code, "it is refused").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: "umbra"})
	if err != nil {
		return err
	}
	return refused.Err()
}

// result is what one command line came to.
type result struct {
	code     int
	out, err string
}

// typed runs a command line against the plane, with a person who types that; "" is nobody.
func (p *plane) typed(ctx context.Context, text string, args ...string) result {
	return typed(ctx, text, append([]string{"--server", "unix:" + p.socket}, args...))
}

func typed(ctx context.Context, text string, args []string) result {
	var out, said bytes.Buffer
	code := run(ctx, args, console{
		in: strings.NewReader(text), out: &out, err: &said, clock: clock.System, zone: time.UTC, asks: text != "",
	})
	return result{code, out.String(), said.String()}
}

func (r result) want(t *testing.T, code int, contains ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	for _, text := range contains {
		if !strings.Contains(r.out+r.err, text) {
			t.Errorf("nothing says %q", text)
		}
	}
	if t.Failed() {
		t.Fatalf("out:\n%s\nerr:\n%s", r.out, r.err)
	}
}
