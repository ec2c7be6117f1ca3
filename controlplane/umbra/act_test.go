package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	succeeded = umbrav1.OperationState_OPERATION_STATE_SUCCEEDED
	failed    = umbrav1.OperationState_OPERATION_STATE_FAILED
)

// hasty is a clock by which every wait is over at once.
type hasty struct{ clock.Clock }

func (hasty) Wait(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// said tells when something is said that begins so.
type said struct {
	beginning string
	tell      func()
}

func (s said) Write(text []byte) (int, error) {
	if strings.HasPrefix(string(text), s.beginning) {
		s.tell()
	}
	return len(text), nil
}

func TestWhoWaitsIsToldForWhat(t *testing.T) {
	p := startPlane(t)
	heard := make(chan struct{})
	told := said{"Waiting for the control plane at unix:" + p.socket, sync.OnceFunc(func() { close(heard) })}
	p.failover = func(int) error {
		select {
		case <-heard:
		case <-t.Context().Done():
		}
		return nil
	}
	code := run(t.Context(), []string{"--server", "unix:" + p.socket, "failover", "web", "--yes", "--no-wait"},
		console{in: strings.NewReader(""), out: io.Discard, err: told, clock: hasty{clock.System}, zone: time.UTC})
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

func TestNobodyWhoAnswersIsToldWithTheAddressAndWhatToDo(t *testing.T) {
	typed(t.Context(), "", []string{"--server", "unix:/nowhere/s", "--timeout", "1ms", "pairs", "list"}).
		want(t, exitUnavailable, "no control plane has answered at unix:/nowhere/s within 1ms", "--server, UMBRA_SERVER")
}

func TestEveryExitCodeIsWhatTheHelpSays(t *testing.T) {
	for _, c := range []struct {
		name     string
		answer   error
		end      umbrav1.OperationState
		args     []string
		code     int
		contains string
	}{
		{name: "done", end: succeeded, code: exitDone, contains: "SUCCEEDED"},
		{name: "failed", end: failed, code: exitFailed, contains: "reason: NETWORK_MISSING"},
		{name: "wrong usage", args: []string{"--no-such-flag"}, code: exitUsage, contains: "no-such-flag"},
		{name: "invalid", answer: refusal(codes.InvalidArgument, "INVALID_FIELD"), code: exitUsage, contains: "reason: INVALID_FIELD"},
		{name: "refused", answer: refusal(codes.FailedPrecondition, "STATE_NOT_ALLOWED"), code: exitRefused, contains: "reason: STATE_NOT_ALLOWED"},
		{name: "not found", answer: refusal(codes.NotFound, "NOT_FOUND"), code: exitNotFound, contains: "reason: NOT_FOUND"},
		{name: "not known", answer: refusal(codes.Unauthenticated, "UNAUTHENTICATED"), code: exitNotAllowed, contains: "reason: UNAUTHENTICATED"},
		{name: "not allowed", answer: refusal(codes.PermissionDenied, "PERMISSION_DENIED"), code: exitNotAllowed, contains: "reason: PERMISSION_DENIED"},
		{name: "unavailable", answer: status.Error(codes.Unavailable, "it is away"), args: []string{"--timeout", "1ms"}, code: exitUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := startPlane(t)
			p.failover, p.watch = func(int) error { return c.answer }, ends(c.end)
			p.typed(t.Context(), "", append([]string{"failover", "web", "--yes"}, c.args...)...).want(t, c.code, c.contains)
		})
	}
}

func TestARequestIsSentAgainWithTheSameIdWhenNoAnswerComes(t *testing.T) {
	p := startPlane(t)
	p.watch = ends(succeeded)
	p.failover = func(attempt int) error {
		if attempt < 3 {
			return status.Error(codes.Unavailable, "the connection broke")
		}
		return nil
	}
	r := p.typed(t.Context(), "", "failover", "web", "--yes")
	r.want(t, exitDone)
	if len(p.requests) != 3 || p.requests[0] == "" || p.requests[1] != p.requests[0] || p.requests[2] != p.requests[0] {
		t.Errorf("the request ids are %q", p.requests)
	}
	r.want(t, exitDone, "Request id "+p.requests[0])

	p.typed(t.Context(), "", "failover", "web", "--yes", "--request-id", "mine").want(t, exitDone)
	if p.requests[3] != "mine" {
		t.Errorf("the request ids are %q", p.requests)
	}
}

func TestAWatchThatBreaksIsTakenUpAgain(t *testing.T) {
	p := startPlane(t)
	p.watch = func(attempt int, stream umbrav1.FailoverService_WatchOperationServer) error {
		if attempt == 1 {
			if err := stream.Send(&umbrav1.WatchOperationResponse{Operation: operation(umbrav1.OperationState_OPERATION_STATE_RUNNING)}); err != nil {
				return err
			}
			return status.Error(codes.Unavailable, "the connection broke")
		}
		return ends(succeeded)(attempt, stream)
	}
	p.typed(t.Context(), "", "operations", "watch", "op-1").want(t, exitDone, "SUCCEEDED")
	if p.watches != 2 {
		t.Errorf("it was watched %d times", p.watches)
	}
}

func TestInterruptingEndsTheWatchAndSaysThatTheOperationGoesOn(t *testing.T) {
	p := startPlane(t)
	ctx, interrupt := context.WithCancel(t.Context())
	p.watch = func(_ int, stream umbrav1.FailoverService_WatchOperationServer) error {
		interrupt()
		<-stream.Context().Done()
		return nil
	}
	p.typed(ctx, "", "failover", "web", "--yes").want(t, exitInterrupted, "goes on", "umbra operations watch op-1")
}

func TestWhatCannotBeUndoneIsDoneOnlyWhenItIsConfirmed(t *testing.T) {
	for _, command := range []string{"failover", "change-recovery-point --point=p", "commit", "restart-replication", "delete"} {
		p := startPlane(t)
		args := append(strings.Fields(command), "web")
		p.typed(t.Context(), "", args...).want(t, exitUsage, "--yes")
		p.typed(t.Context(), "wbe\n", args...).want(t, exitUsage, "not confirmed")
		if len(p.requests) > 0 {
			t.Errorf("%s: it was asked for", command)
		}
	}
	p := startPlane(t)
	p.watch = ends(succeeded)
	p.typed(t.Context(), "web\n", "failover", "web").want(t, exitDone)
}

func TestADryRunShowsWhatStandsInTheWayAndDoesNothing(t *testing.T) {
	p := startPlane(t)
	p.plan = &umbrav1.FailoverPlan{Steps: []umbrav1.StepKind{umbrav1.StepKind_STEP_KIND_STOP_REPLICATION}}
	p.typed(t.Context(), "", "failover", "web", "--dry-run").want(t, exitDone, "1. stop replication")
	p.plan.Blockers = []*umbrav1.Failure{{Reason: umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT, Message: "there is none"}}
	p.typed(t.Context(), "", "failover", "web", "--dry-run").want(t, exitRefused, "reason: NO_RECOVERY_POINT")
	p.typed(t.Context(), "web\n", "failover", "web").want(t, exitRefused, "reason: NO_RECOVERY_POINT")
	if len(p.requests) > 0 {
		t.Error("it was asked for")
	}
	p.watch = ends(succeeded) // the same request once more is not stopped by what it has begun itself
	p.typed(t.Context(), "web\n", "failover", "web", "--request-id", "mine").want(t, exitDone)
}

func TestJSONIsOneMessageOfTheAPI(t *testing.T) {
	p := startPlane(t)
	p.watch = ends(succeeded)
	r := p.typed(t.Context(), "", "-o", "json", "failover", "web", "--yes")
	var read struct{ Name, State string }
	if err := json.Unmarshal([]byte(r.out), &read); err != nil || read.Name != "operations/op-1" || read.State != "OPERATION_STATE_SUCCEEDED" {
		t.Errorf("%v: %s", err, r.out)
	}
}

func TestPlainTextIsSpokenOnlyOnThisMachine(t *testing.T) {
	for server, refused := range map[string]bool{"127.0.0.1:1": false, "localhost:1": false, "[::1]:1": false, "192.0.2.1:1": true, "cp.example.net:7443": true} {
		_, err := connection{Server: server, Plaintext: true}.security()
		if (err != nil) != refused {
			t.Errorf("%s: %v", server, err)
		}
	}
	if _, err := (connection{Server: "127.0.0.1:1"}).security(); err == nil {
		t.Error("without --plaintext and without --ca there is a connection")
	}
}
