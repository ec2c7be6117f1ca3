package api_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestCreateFillsInDefaultsAndTheServersUUID(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	pair := p.create("a", "vm")
	policy := pair.GetPolicy()
	switch {
	case pair.GetState() != umbrav1.DRPairState_DR_PAIR_STATE_INITIAL_SYNC, pair.GetMain().GetServerUuid() != "uuid-vm",
		pair.GetShadow().GetServer() != "vm", pair.GetUid() == "", pair.GetEtag() == "", pair.GetNextStep() == "",
		policy.GetInterval().AsDuration() != 15*time.Second, len(policy.GetRetention().GetRules()) != 3,
		policy.GetOnMainReturn() != umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN:
		t.Errorf("the pair is %v", pair)
	}
}

func TestCreateWarnsOfWhatWouldHurtLater(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	shadow, _ := p.observed.Host("shadow-host")
	poor := proto.CloneOf(shadow.Inventory)
	poor.Networks, poor.Capacity.MemoryFreeBytes = nil, 1
	p.observed.SetInventory("shadow-host", shadow.Session, poor, shadow.ReportTime)
	request := createRequest("a", "raw")
	request.ValidateOnly = true
	response, err := p.protection.CreateDRPair(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[umbrav1.ErrorReason]int{}
	for _, warning := range response.GetWarnings() {
		reasons[warning.GetReason()]++
	}
	for _, want := range []umbrav1.ErrorReason{
		umbrav1.ErrorReason_ERROR_REASON_CHANGES_NOT_TRACKED, umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING, umbrav1.ErrorReason_ERROR_REASON_MEMORY_MISSING,
	} {
		if reasons[want] != 1 {
			t.Errorf("the warnings are %v", response.GetWarnings())
		}
	}
	_, err = p.failover.GetDRPair(t.Context(), &umbrav1.GetDRPairRequest{Name: "drPairs/a"})
	wantMissing(t, err, "drPairs/a")
}

func TestARepeatedCreateGetsTheSamePair(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	request := createRequest("a", "vm")
	request.RequestId = "once"
	first, err := p.protection.CreateDRPair(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.protection.CreateDRPair(t.Context(), request)
	if err != nil || second.GetDrPair().GetUid() != first.GetDrPair().GetUid() {
		t.Errorf("got %v, %v", second, err)
	}
	p.delete("a")
	_, err = p.protection.CreateDRPair(t.Context(), request)
	wantMissing(t, err, "drPairs/a")
}

func TestAnUpdateChangesTheFieldsOfItsMaskAndNoOthers(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	p.create("a", "vm")
	update := func(policy *umbrav1.Policy, paths ...string) *umbrav1.Policy {
		t.Helper()
		response, err := p.protection.UpdateDRPair(t.Context(), &umbrav1.UpdateDRPairRequest{
			DrPair: &umbrav1.DRPair{Name: "drPairs/a", Policy: policy}, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetDrPair().GetPolicy()
	}
	update(&umbrav1.Policy{BandwidthBytesPerSecond: 1000, Interval: durationpb.New(time.Minute)}, "policy.interval", "policy.bandwidth_bytes_per_second")
	got := update(&umbrav1.Policy{
		Interval: durationpb.New(0), Retention: &umbrav1.RetentionPolicy{StoreBytesMax: 5}, Verification: &umbrav1.VerificationPolicy{GuestAgent: true},
	}, "policy.retention.store_bytes_max", "policy.verification.guest_agent")
	switch {
	case got.GetInterval().AsDuration() != time.Minute, got.GetBandwidthBytesPerSecond() != 1000,
		got.GetRetention().GetStoreBytesMax() != 5, len(got.GetRetention().GetRules()) != 3, !got.GetVerification().GetGuestAgent(),
		got.GetVerification().GetTimeout().AsDuration() != 2*time.Minute:
		t.Errorf("the policy is %v", got)
	}
	if got := update(&umbrav1.Policy{}, "policy.interval"); got.GetInterval().AsDuration() != 15*time.Second || got.GetBandwidthBytesPerSecond() != 1000 {
		t.Errorf("a field that is cleared has not its default: %v", got)
	}
	if got := update(&umbrav1.Policy{}); got.GetBandwidthBytesPerSecond() != 0 || got.GetVerification().GetGuestAgent() {
		t.Errorf("without a mask the policy is not replaced: %v", got)
	}
}

func TestAnUpdateThatOnlyChecksChangesNothing(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	before := p.create("a", "vm")
	request := &umbrav1.UpdateDRPairRequest{
		DrPair: &umbrav1.DRPair{Name: "drPairs/a", Policy: &umbrav1.Policy{Interval: durationpb.New(time.Hour)}}, ValidateOnly: true,
	}
	response, err := p.protection.UpdateDRPair(t.Context(), request)
	if err != nil || response.GetDrPair().GetPolicy().GetInterval().AsDuration() != time.Hour {
		t.Fatalf("got %v, %v", response, err)
	}
	after, err := p.failover.GetDRPair(t.Context(), &umbrav1.GetDRPairRequest{Name: "drPairs/a"})
	if err != nil || !proto.Equal(after.GetDrPair().GetPolicy(), before.GetPolicy()) || after.GetDrPair().GetEtag() != before.GetEtag() {
		t.Errorf("the pair has changed: %v, %v", after, err)
	}
}

func TestPauseAndResumeAndTheirRepetition(t *testing.T) {
	p := startPlane(t)
	p.protect()
	pause := &umbrav1.PauseReplicationRequest{Name: "drPairs/a", RequestId: "p"}
	for range 2 {
		response, err := p.protection.PauseReplication(t.Context(), pause)
		if err != nil || response.GetDrPair().GetState() != umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED {
			t.Fatalf("got %v, %v", response, err)
		}
	}
	_, err := p.protection.PauseReplication(t.Context(), &umbrav1.PauseReplicationRequest{Name: "drPairs/a"})
	wantError(t, err, codes.FailedPrecondition, "STATE_NOT_ALLOWED")
	if _, err := p.protection.ResumeReplication(t.Context(), &umbrav1.ResumeReplicationRequest{Name: "drPairs/a"}); err != nil {
		t.Fatal(err)
	}
	p.waitFor("a", umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING)
}

func TestDeleteGivesAnOperationThatOutlivesThePair(t *testing.T) {
	p := startPlane(t)
	p.protect()
	request := &umbrav1.DeleteDRPairRequest{Name: "drPairs/a", Force: true, RequestId: "d"}
	first, err := p.protection.DeleteDRPair(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	second, err := p.protection.DeleteDRPair(t.Context(), request)
	if err != nil || second.GetOperation().GetName() != first.GetOperation().GetName() {
		t.Errorf("repeated: %v, %v", second, err)
	}
	got, err := p.failover.GetOperation(t.Context(), &umbrav1.GetOperationRequest{Name: first.GetOperation().GetName()})
	if err != nil || got.GetOperation().GetState() != umbrav1.OperationState_OPERATION_STATE_SUCCEEDED {
		t.Errorf("the operation is %v, %v", got, err)
	}
	list, err := p.failover.ListOperations(t.Context(), &umbrav1.ListOperationsRequest{DrPair: "drPairs/a"})
	if err != nil || len(list.GetOperations()) != 1 {
		t.Errorf("the operations are %v, %v", list, err)
	}
}

func TestTheSameCreateTwiceAtTheSameMomentMakesOnePair(t *testing.T) {
	p := startPlane(t)
	p.connectHosts()
	request := createRequest("a", "vm")
	request.RequestId = "once"
	uids := make([]string, 8)
	var callers sync.WaitGroup
	for i := range uids {
		callers.Go(func() {
			response, err := p.protection.CreateDRPair(t.Context(), request)
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
			uids[i] = response.GetDrPair().GetUid()
		})
	}
	callers.Wait()
	if uids[0] == "" || slices.ContainsFunc(uids, func(uid string) bool { return uid != uids[0] }) {
		t.Errorf("the uids are %v", uids)
	}
}

func TestNobodySaysWhetherAServerRunsWhileItsHostIsAway(t *testing.T) {
	p := startPlane(t)
	p.protect()
	p.reportMain("a", &umbrav1.MainReport{
		Phase: umbrav1.MainPhase_MAIN_PHASE_REPLICATING, ResyncGeneration: 1, ServerState: umbrav1.PowerState_POWER_STATE_RUNNING,
	})
	power := func() umbrav1.PowerState {
		response, err := p.failover.GetDRPair(t.Context(), &umbrav1.GetDRPairRequest{Name: "drPairs/a"})
		if err != nil {
			t.Fatal(err)
		}
		return response.GetDrPair().GetMain().GetPowerState()
	}
	if got := power(); got != umbrav1.PowerState_POWER_STATE_RUNNING {
		t.Errorf("with its host connected: %v", got)
	}
	host, _ := p.observed.Host("main-host")
	p.observed.Disconnect("main-host", host.Session, true, host.ChangeTime)
	if got := power(); got != umbrav1.PowerState_POWER_STATE_UNSPECIFIED {
		t.Errorf("with its host away: %v", got)
	}
}
