package api_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestTheWholeFlowFromFailoverToCommit(t *testing.T) {
	p := startPlane(t)
	ctx := t.Context()
	p.protect()

	failover, err := p.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/a", RecoveryPoint: point(1)})
	if err != nil {
		t.Fatal(err)
	}
	operation := failover.GetOperation()
	if operation.GetKind() != umbrav1.OperationKind_OPERATION_KIND_FAILOVER || operation.GetRecoveryPoint() != point(1) || len(operation.GetSteps()) != 6 {
		t.Errorf("the operation is %v", operation)
	}
	processing := p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_PROCESSING)
	if processing.GetCurrentOperation() != operation.GetName() || len(processing.GetAllowedActions()) != 0 {
		t.Errorf("while it runs the pair is %v", processing)
	}
	_, err = p.failover.Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/a"})
	if info := wantError(t, err, codes.FailedPrecondition, "OPERATION_RUNNING"); info.GetMetadata()["operation"] != operation.GetName() {
		t.Errorf("the error says %v", info)
	}
	p.bootShadow(1)
	if pair := p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER); pair.GetActiveRecoveryPoint() != point(1) {
		t.Errorf("the shadow server runs from %s", pair.GetActiveRecoveryPoint())
	}

	changed, err := p.failover.ChangeRecoveryPoint(ctx, &umbrav1.ChangeRecoveryPointRequest{Name: "drPairs/a", RecoveryPoint: point(2)})
	if err != nil {
		t.Fatal(err)
	}
	p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_CHANGING_RECOVERY_POINT)
	p.reportShadow("a", &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, StoppedEpoch: 2, Attempt: 2, RecoveryPointCount: 3})
	if pair := p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER); pair.GetActiveRecoveryPoint() != point(2) {
		t.Errorf("the shadow server runs from %s", pair.GetActiveRecoveryPoint())
	}

	committed, err := p.failover.CommitFailover(ctx, &umbrav1.CommitFailoverRequest{Name: "drPairs/a", DeleteRecoveryPoints: true})
	if err != nil {
		t.Fatal(err)
	}
	p.reportShadow("a", &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED, StoppedEpoch: 2, Attempt: 2})
	p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED)

	list, err := p.failover.ListOperations(ctx, &umbrav1.ListOperationsRequest{DrPair: "drPairs/a"})
	if err != nil || len(list.GetOperations()) != 3 {
		t.Fatalf("the operations are %v, %v", list, err)
	}
	for i, want := range []*umbrav1.Operation{committed.GetOperation(), changed.GetOperation(), operation} {
		got := list.GetOperations()[i]
		if got.GetName() != want.GetName() || got.GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED || got.GetEndTime() == nil {
			t.Errorf("operation %d is %v", i, got)
		}
	}
}

// bootShadow reports what a shadow host does for a failover of pair "a" that is its attempt-th boot.
func (p *plane) bootShadow(attempt uint64) {
	p.t.Helper()
	p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_PROCESSING)
	epoch := p.epoch("a")
	p.reportShadow("a", &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED, StoppedEpoch: epoch, RecoveryPointCount: 3})
	p.reportMain("a", &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_FENCED, FenceMessage: "shut down"})
	p.until("a", func(pair *umbrav1.DRPair) bool {
		for _, condition := range pair.GetConditions() {
			if condition.GetType() == "Fenced" && condition.GetStatus() == umbrav1.ConditionStatus_CONDITION_STATUS_TRUE {
				return true
			}
		}
		return false
	})
	p.reportShadow("a", &umbrav1.ShadowReport{
		Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, StoppedEpoch: epoch, Attempt: attempt, RecoveryPointCount: 3,
	})
}

func TestFailoverWithoutAPointTakesTheNewestThatIsNotDamaged(t *testing.T) {
	p := startPlane(t)
	p.protect()
	response, err := p.failover.Failover(t.Context(), &umbrav1.FailoverRequest{Name: "drPairs/a"})
	if err != nil || response.GetOperation().GetRecoveryPoint() != point(2) {
		t.Fatalf("got %v, %v", response, err)
	}
}

func TestTheNewestPointIsTheOneMadeLastThoughTheMainHostsClockWasSetBack(t *testing.T) {
	p := startPlane(t)
	p.protect()
	points := testPoints(3)
	points[2].Damaged = false
	points[2].PointTime = timestamppb.New(points[0].GetPointTime().AsTime().Add(-time.Hour))
	p.answers.set(func(f *fakeHosts) { f.points["a"] = points })
	response, err := p.failover.Failover(t.Context(), &umbrav1.FailoverRequest{Name: "drPairs/a"})
	if err != nil || response.GetOperation().GetRecoveryPoint() != point(3) {
		t.Fatalf("got %v, %v", response, err)
	}
}

func TestADamagedPointNeedsForce(t *testing.T) {
	p := startPlane(t)
	p.protect()
	request := &umbrav1.FailoverRequest{Name: "drPairs/a", RecoveryPoint: point(3)}
	_, err := p.failover.Failover(t.Context(), request)
	wantError(t, err, codes.FailedPrecondition, "RECOVERY_POINT_DAMAGED")
	request.Force = true
	if response, err := p.failover.Failover(t.Context(), request); err != nil || response.GetOperation().GetRecoveryPoint() != point(3) {
		t.Fatalf("got %v, %v", response, err)
	}
}

func TestARepeatedRequestGetsItsFirstOperationThoughTheStateHasMovedOn(t *testing.T) {
	p := startPlane(t)
	p.protect()
	request := &umbrav1.FailoverRequest{Name: "drPairs/a", RequestId: "night of the fire"}
	names := make([]string, 8)
	var callers sync.WaitGroup
	for i := range names {
		callers.Go(func() {
			response, err := p.failover.Failover(t.Context(), request)
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
			names[i] = response.GetOperation().GetName()
		})
	}
	callers.Wait()
	p.bootShadow(1)
	p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER)
	p.answers.set(func(f *fakeHosts) { f.away = true })
	late, err := p.failover.Failover(t.Context(), request)
	if err != nil || late.GetOperation().GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
		t.Errorf("repeated after its end: %v, %v", late, err)
	}
	for _, name := range append(names, late.GetOperation().GetName()) {
		if name == "" || name != names[0] {
			t.Errorf("the operations are %v", names)
		}
	}
	other := proto.CloneOf(request)
	other.Force = true
	_, err = p.failover.Failover(t.Context(), other)
	wantError(t, err, codes.InvalidArgument, "REQUEST_ID_REUSED")
}

func TestAPlanNamesStepsPointAndBlockersAndChangesNothing(t *testing.T) {
	p := startPlane(t)
	before := p.protect()
	plan := func(request *umbrav1.FailoverRequest) *umbrav1.FailoverPlan {
		t.Helper()
		request.Name, request.ValidateOnly, request.RequestId = "drPairs/a", true, "plan"
		response, err := p.failover.Failover(t.Context(), request)
		if err != nil || response.GetOperation() != nil {
			t.Fatalf("got %v, %v", response, err)
		}
		return response.GetPlan()
	}
	wantBlocker := func(plan *umbrav1.FailoverPlan, reason umbrav1.ErrorReason) {
		t.Helper()
		if blockers := plan.GetBlockers(); len(blockers) != 1 || blockers[0].GetReason() != reason {
			t.Errorf("the blockers are %v, not %v", blockers, reason)
		}
	}
	if got := plan(&umbrav1.FailoverRequest{}); len(got.GetSteps()) != 6 || got.GetRecoveryPoint().GetName() != point(2) || len(got.GetBlockers()) != 0 {
		t.Errorf("the plan is %v", got)
	}
	wantBlocker(plan(&umbrav1.FailoverRequest{RecoveryPoint: point(3)}), umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED)
	p.reportShadow("a", &umbrav1.ShadowReport{
		Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING, RecoveryPointCount: 3,
		Conditions: []*umbrav1.Condition{{
			Type: "ReadyForFailover", Status: umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, Reason: "NETWORK_MISSING", Message: "There is no network front.",
		}},
	})
	wantBlocker(plan(&umbrav1.FailoverRequest{}), umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING)
	p.answers.set(func(f *fakeHosts) { f.away = true })
	wantBlocker(plan(&umbrav1.FailoverRequest{}), umbrav1.ErrorReason_ERROR_REASON_SHADOW_HOST_UNREACHABLE)
	after, err := p.failover.GetDRPair(t.Context(), &umbrav1.GetDRPairRequest{Name: "drPairs/a"})
	if err != nil || after.GetDrPair().GetEtag() != before.GetEtag() {
		t.Errorf("the pair has changed: %v, %v", after, err)
	}
}

func TestAShadowHostThatIsAwayIsUnavailable(t *testing.T) {
	p := startPlane(t)
	p.protect()
	p.answers.set(func(f *fakeHosts) { f.away = true })
	_, err := p.failover.ListRecoveryPoints(t.Context(), &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/a"})
	wantError(t, err, codes.Unavailable, "SHADOW_HOST_UNREACHABLE")
	_, err = p.failover.Failover(t.Context(), &umbrav1.FailoverRequest{Name: "drPairs/a"})
	wantError(t, err, codes.Unavailable, "SHADOW_HOST_UNREACHABLE")
}

func TestWatchOperationSendsProgressAndEndsAfterTheEnd(t *testing.T) {
	p := startPlane(t)
	p.protect()
	response, err := p.failover.Failover(t.Context(), &umbrav1.FailoverRequest{Name: "drPairs/a"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := p.failover.WatchOperation(ctx, &umbrav1.WatchOperationRequest{Name: response.GetOperation().GetName()})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || !proto.Equal(first.GetOperation(), response.GetOperation()) {
		t.Fatalf("the first message is %v, %v", first, err)
	}
	p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_FAILOVER_PROCESSING)
	p.reportShadow("a", &umbrav1.ShadowReport{
		Phase: umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED, StoppedEpoch: 1, Attempt: 1, // of an epoch that is not enough: nothing is stored
		Steps: []*umbrav1.Step{{Kind: umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, Progress: &umbrav1.Progress{DoneBytes: 7}}},
	})
	for progress := int64(0); progress != 7; {
		message, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		progress = message.GetOperation().GetSteps()[2].GetProgress().GetDoneBytes()
	}
	p.bootShadow(1)
	var last *umbrav1.Operation
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		last = message.GetOperation()
	}
	if last.GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED || len(last.GetAllowedActions()) == 0 {
		t.Errorf("the last message is %v", last)
	}
}
