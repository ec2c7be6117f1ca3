package monitoring_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/metadata"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const (
	fromPlane = "umbra-controlplane"
	fromHost  = "umbra-hostd"
	caller    = "b7ad6b7169203331" // the span that the tests' calls are made in
)

// gated holds up the start of servers while it is closed.
type gated struct {
	hypervisor.Target
	reached, open chan struct{}
}

func (g *gated) Start(ctx context.Context, server string) error {
	select {
	case g.reached <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
		return g.Target.Start(ctx, server)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestAFailoverAndItsCommitAreOneTraceAcrossControlPlaneAndHosts(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a whole system")
	}
	spans := startCollector(t)
	plane := startPlane(t, "--traces")
	a, b := newHost(), newHost()
	gate := &gated{Target: b.hypervisor, reached: make(chan struct{}, 1), open: make(chan struct{})}
	a.run(t, plane, "a", a.hypervisor, true)
	b.run(t, plane, "b", gate, true)
	a.addServer(t, "srv")
	protecting, failing := strings.Repeat("1a", 16), strings.Repeat("2b", 16)

	plane.protectTraced(t, protecting)
	spans.untilHas(t, protecting, fromPlane+": umbra.v1.ProtectionService/CreateDRPair", fromHost+": replication cycle", fromHost+": store recovery point")

	failover := plane.failoverTraced(t, failing)
	<-gate.reached // the shadow host is at it; now the control plane is lost, with what it has not sent
	spans.untilHas(t, failing, fromPlane+": umbra.v1.FailoverService/Failover")
	plane.kill()
	plane.run(t, "--traces")
	close(gate.open)
	plane.untilDone(t, failover)
	commit := plane.commitTraced(t, failing)
	plane.untilDone(t, commit)

	steps := map[string][]string{
		failover: {"stop replication", "fence main", "prepare disks", "define server", "start server", "verify server"},
		commit:   {"flatten disks", "delete recovery points"},
	}
	wanted := []string{fromPlane + ": failover", fromPlane + ": umbra.v1.FailoverService/CommitFailover", fromPlane + ": commit failover"}
	for _, names := range steps {
		for _, name := range names {
			wanted = append(wanted, fromPlane+": "+name, fromHost+": "+name)
		}
	}
	spans.untilHas(t, failing, wanted...)
	inOrder(t, spans.of(failing), failover, "2", "failover", steps[failover]...)
	inOrder(t, spans.of(failing), commit, "2", "commit failover", steps[commit]...)

	spans.forget()
	plane.kill() // perhaps before it has sent the end of the commit: the next life sends that again
	plane.run(t, "--traces")
	spans.untilHas(t, failing, fromPlane+": commit failover", fromPlane+": flatten disks", fromPlane+": delete recovery points")
	if !strings.HasSuffix(commit, spans.one(t, failing, "commit failover").attribute("umbra.operation")) {
		t.Error("what is sent again is another operation")
	}
}

// refusing starts no server while it is on.
type refusing struct {
	hypervisor.Target
	on atomic.Bool
}

var errRefused = errors.New("this host starts nothing")

func (r *refusing) Start(ctx context.Context, server string) error {
	if r.on.Load() {
		return errRefused
	}
	return r.Target.Start(ctx, server)
}

func TestEveryOtherOperationIsATraceTooAndOneThatFailsHasItsErrorWhereItFailed(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs a whole system")
	}
	spans := startCollector(t)
	plane := startPlane(t, "--traces")
	a, b := newHost(), newHost()
	shadow := &refusing{Target: b.hypervisor}
	a.run(t, plane, "a", a.hypervisor, true)
	b.run(t, plane, "b", shadow, true)
	a.addServer(t, "srv")
	protecting := strings.Repeat("1a", 16)
	plane.protectTraced(t, protecting)
	spans.untilHas(t, protecting, fromPlane+": umbra.v1.ProtectionService/CreateDRPair", fromHost+": store recovery point")
	if got := spans.one(t, protecting, "umbra.v1.ProtectionService/CreateDRPair").attribute("umbra.pair"); got != "p" {
		t.Errorf("the call that protects says that it is about pair %q", got)
	}
	failovers, pairs := umbrav1.NewFailoverServiceClient(plane.api), umbrav1.NewProtectionServiceClient(plane.api)

	toStart := []string{"stop replication", "fence main", "prepare disks", "define server", "start server"}
	for i, of := range []struct {
		name, epoch string
		steps       []string
		fails       string // the step that does
		call        func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error)
	}{
		{"restart replication", "2", []string{"resynchronize"}, "", func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error) {
			return failovers.RestartReplication(ctx, &umbrav1.RestartReplicationRequest{Name: "drPairs/p", RequestId: id})
		}},
		{"failover", "3", toStart, "start server", func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error) {
			return failovers.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/p", RequestId: id})
		}},
		{"failover", "4", append(toStart, "verify server"), "", func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error) {
			return failovers.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/p", RequestId: id})
		}},
		{
			"change recovery point", "4",
			[]string{"prepare disks", "stop server", "define server", "start server", "verify server"},
			"",
			func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error) {
				points, err := failovers.ListRecoveryPoints(ctx, &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/p"})
				if err != nil {
					return nil, err
				}
				return failovers.ChangeRecoveryPoint(ctx, &umbrav1.ChangeRecoveryPointRequest{
					Name: "drPairs/p", RequestId: id, RecoveryPoint: points.GetRecoveryPoints()[0].GetName(),
				})
			},
		},
		{"commit failover", "4", []string{"flatten disks"}, "", func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error) {
			return failovers.CommitFailover(ctx, &umbrav1.CommitFailoverRequest{Name: "drPairs/p", RequestId: id})
		}},
		{"delete", "5", []string{"stop replication", "delete recovery points"}, "", func(ctx context.Context, id string) (interface{ GetOperation() *umbrav1.Operation }, error) {
			return pairs.DeleteDRPair(ctx, &umbrav1.DeleteDRPairRequest{Name: "drPairs/p", RequestId: id})
		}},
	} {
		in := fmt.Sprintf("%032x", i+1)
		shadow.on.Store(of.fails != "")
		begun, err := of.call(called(t.Context(), in), fmt.Sprintf("7d9b1c0a-4a43-4a6f-8f0f-%012x", i+1))
		must(t, err)
		operation := begun.GetOperation().GetName()
		wanted := []string{fromPlane + ": " + of.name}
		for _, step := range of.steps {
			wanted = append(wanted, fromPlane+": "+step)
			if step == "resynchronize" {
				step = "replication cycle"
			}
			wanted = append(wanted, fromHost+": "+step)
		}
		spans.untilHas(t, in, wanted...)
		inOrder(t, spans.of(in), operation, of.epoch, of.name, of.steps...)
		for _, span := range spans.of(in) {
			failed, should := span.GetStatus().GetCode() == traces.Status_STATUS_CODE_ERROR, of.fails != "" && (span.GetName() == of.name || span.GetName() == of.fails)
			if failed != should || should && !strings.Contains(span.GetStatus().GetMessage(), errRefused.Error()) {
				t.Errorf("%s of %s, in the %s of epoch %s, has the status %v", span.GetName(), span.service, of.name, of.epoch, span.GetStatus())
			}
		}
	}
}

// inOrder sees to it that an operation's span lies under the call that asked for it, each step under the operation, each host's part
// under the step, all within the operation's time, and that all say what they are about. A host may begin with its part before the
// control plane waits for it: the fence does. A cycle ends after its recovery point has been reported.
func inOrder(t *testing.T, trace []received, operation, epoch, name string, steps ...string) {
	t.Helper()
	id := strings.TrimPrefix(operation, "operations/")
	byID := map[string]received{}
	var whole received
	for _, span := range trace {
		if span.service == fromPlane && span.GetName() == name {
			whole = span
		}
		byID[hex.EncodeToString(span.GetSpanId())] = span
	}
	seen := map[string]int{}
	for _, span := range trace {
		if span.attribute("umbra.operation") != id {
			continue
		}
		isCall := strings.HasPrefix(span.GetName(), "umbra.v1.")
		if span.attribute("umbra.pair") != "p" || span.attribute("umbra.epoch") != epoch && !isCall {
			t.Errorf("%s does not say what it is about: %v", span.GetName(), span.GetAttributes())
		}
		if isCall {
			continue
		}
		seen[span.service+": "+span.GetName()]++
		parent := byID[hex.EncodeToString(span.GetParentSpanId())]
		around := fromPlane + ": " + span.GetName() // of a host's part
		isCycle := span.GetName() == "replication cycle"
		switch {
		case isCycle:
			around = fromPlane + ": resynchronize"
		case span.service == fromPlane && span.GetName() == name:
			if !strings.HasPrefix(parent.GetName(), "umbra.v1.") || parent.attribute("umbra.operation") != id || hex.EncodeToString(parent.GetParentSpanId()) != caller {
				t.Errorf("%s lies under %q", name, parent.GetName())
			}
			continue
		case span.service == fromPlane:
			around = fromPlane + ": " + name
		}
		if got := parent.service + ": " + parent.GetName(); got != around || parent.attribute("umbra.operation") != id {
			t.Errorf("%s of %s lies under %q", span.GetName(), span.service, got)
		}
		begin, end := span.GetStartTimeUnixNano(), span.GetEndTimeUnixNano()
		if begin < whole.GetStartTimeUnixNano() || end < begin || end > whole.GetEndTimeUnixNano() && !isCycle {
			t.Errorf("%s of %s, %d to %d, is not within %d to %d", span.GetName(), span.service, begin, end, whole.GetStartTimeUnixNano(), whole.GetEndTimeUnixNano())
		}
	}
	for _, step := range append(steps, name) {
		if seen[fromPlane+": "+step] != 1 {
			t.Errorf("%s has %d spans of the control plane", step, seen[fromPlane+": "+step])
		}
	}
}

// untilHas waits until the trace has spans of those services and names.
func (c *spanCollector) untilHas(t *testing.T, trace string, wanted ...string) {
	t.Helper()
	until(t, "the trace is not complete", func(context.Context) error {
		has := map[string]bool{}
		for _, span := range c.of(trace) {
			has[span.service+": "+span.GetName()] = true
		}
		for _, one := range wanted {
			if !has[one] {
				return fmt.Errorf("%s is not in %v", one, has)
			}
		}
		return nil
	})
}

// one is the trace's span of that name.
func (c *spanCollector) one(t *testing.T, trace, name string) received {
	t.Helper()
	for _, span := range c.of(trace) {
		if span.GetName() == name {
			return span
		}
	}
	t.Fatalf("trace %s has no span %s", trace, name)
	return received{}
}

// called is the context of a call that is made in a trace.
func called(ctx context.Context, trace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "traceparent", "00-"+trace+"-"+caller+"-01")
}

func (p *plane) protectTraced(t *testing.T, trace string) {
	t.Helper()
	until(t, "the server is not protected", func(ctx context.Context) error {
		_, err := umbrav1.NewProtectionServiceClient(p.api).CreateDRPair(called(ctx, trace), pairRequest())
		return err
	})
}

func (p *plane) failoverTraced(t *testing.T, trace string) (operation string) {
	t.Helper()
	until(t, "the failover is not accepted", func(ctx context.Context) error {
		begun, err := umbrav1.NewFailoverServiceClient(p.api).Failover(called(ctx, trace), &umbrav1.FailoverRequest{
			Name: "drPairs/p", RequestId: "7d9b1c0a-4a43-4a6f-8f0f-6f5b2f7d0002",
		})
		operation = begun.GetOperation().GetName()
		if got := begun.GetOperation().GetTraceId(); err == nil && got != trace {
			t.Errorf("the operation says that it is in trace %s", got)
		}
		return err
	})
	return operation
}

func (p *plane) commitTraced(t *testing.T, trace string) (operation string) {
	t.Helper()
	begun, err := umbrav1.NewFailoverServiceClient(p.api).CommitFailover(called(t.Context(), trace), &umbrav1.CommitFailoverRequest{
		Name: "drPairs/p", DeleteRecoveryPoints: true, RequestId: "7d9b1c0a-4a43-4a6f-8f0f-6f5b2f7d0003",
	})
	must(t, err)
	return begun.GetOperation().GetName()
}

func (p *plane) untilDone(t *testing.T, operation string) {
	t.Helper()
	until(t, operation+" is not done", func(ctx context.Context) error {
		got, err := umbrav1.NewFailoverServiceClient(p.api).GetOperation(ctx, &umbrav1.GetOperationRequest{Name: operation})
		if err == nil && got.GetOperation().GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
			err = fmt.Errorf("it is %v, %v", got.GetOperation().GetState(), got.GetOperation().GetFailure())
		}
		return err
	})
}
