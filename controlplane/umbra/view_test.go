package main

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

var update = flag.Bool("update", false, "write the golden pages anew")

var (
	noon    = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fixed   = view{now: noon, zone: time.FixedZone("CET", 3600)}
	pairNow = &umbrav1.DRPair{
		Name: "drPairs/web", State: umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_ERROR,
		Main:   &umbrav1.MainServer{Host: "hosts/rack1", Server: "web"},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/rack2", Server: "web", PowerState: umbrav1.PowerState_POWER_STATE_ABSENT},
		AllowedActions: []umbrav1.DRPairAction{
			umbrav1.DRPairAction_DR_PAIR_ACTION_FAILOVER, umbrav1.DRPairAction_DR_PAIR_ACTION_RESTART_REPLICATION,
		},
		Failure: &umbrav1.Failure{
			Reason: umbrav1.ErrorReason_ERROR_REASON_MAIN_HOST_UNREACHABLE, Message: "hosts/rack1 is not connected", Side: umbrav1.Side_SIDE_MAIN,
			PossibleCauses: []string{"The host is down."}, RecommendedActions: []string{"Fail over.", "Or bring the host back."},
		},
		Conditions: []*umbrav1.Condition{{Type: "ReadyForFailover", Status: umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, Reason: "AllChecksPass"}},
		Replication: &umbrav1.ReplicationStatus{
			NewestRecoveryPoint: pointNow(42, 90*time.Second).GetName(), NewestRecoveryPointTime: timestamppb.New(noon.Add(-90 * time.Second)),
			Rpo: durationpb.New(90 * time.Second), RecoveryPointCount: 42, StoreBytes: 3 << 30,
		},
		Policy: &umbrav1.Policy{
			Interval: durationpb.New(5 * time.Second), Consistency: umbrav1.Consistency_CONSISTENCY_CRASH, BandwidthBytesPerSecond: 50 << 20,
			Retention: &umbrav1.RetentionPolicy{StoreBytesMax: 100 << 30, Rules: []*umbrav1.RetentionRule{
				{MaxAge: durationpb.New(time.Hour)}, {MaxAge: durationpb.New(24 * time.Hour), Spacing: durationpb.New(15 * time.Minute)},
			}},
			Verification: &umbrav1.VerificationPolicy{
				RunTime: durationpb.New(2 * time.Second), GuestAgent: true, TcpProbe: "192.0.2.7:22", Timeout: durationpb.New(2 * time.Minute),
			},
			FenceTimeout: durationpb.New(10 * time.Second), OnMainReturn: umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN,
			NetworkMappings: []*umbrav1.NetworkMapping{{MainNetwork: "office", ShadowNetwork: "standby"}},
		},
		NextStep: "Fail over, or bring the main host back.",
	}
)

func pointNow(number int, age time.Duration) *umbrav1.RecoveryPoint {
	return &umbrav1.RecoveryPoint{
		Name: "drPairs/web/recoveryPoints/rp-" + string(rune('0'+number/10)) + string(rune('0'+number%10)), PointTime: timestamppb.New(noon.Add(-age)),
		Consistency: umbrav1.Consistency_CONSISTENCY_CRASH, ChangedBytes: 5 << 20, Newest: number == 42,
	}
}

func TestPagesLookAsTheyDid(t *testing.T) {
	points := []*umbrav1.RecoveryPoint{pointNow(42, 90*time.Second), pointNow(41, 2*time.Hour)}
	host := &umbrav1.Host{
		Name: "hosts/rack1", Connected: true, SessionChangeTime: timestamppb.New(noon.Add(-50 * time.Hour)),
		Capacity: &umbrav1.HostCapacity{MemoryBytes: 8 << 30, MemoryFreeBytes: 4 << 30}, HostdVersion: "1.0",
		ClockOffset: durationpb.New(-200 * time.Second),
		Conditions:  []*umbrav1.Condition{{Type: "ClockInTime", Status: umbrav1.ConditionStatus_CONDITION_STATUS_FALSE, Reason: "CLOCK_DIFFERS", Message: "The host's clock is 3m20s behind."}},
		Servers:     []*umbrav1.Server{{Name: "web", PowerState: umbrav1.PowerState_POWER_STATE_RUNNING, Disks: []*umbrav1.Disk{{Target: "vda", Format: "qcow2", SizeBytes: 10 << 30}}}},
	}
	running := &umbrav1.Operation{
		Name: "operations/op-7", DrPair: "drPairs/web", CreateTime: timestamppb.New(noon.Add(-5 * time.Second)), RequestId: "mine",
		Kind: umbrav1.OperationKind_OPERATION_KIND_COMMIT_FAILOVER, State: umbrav1.OperationState_OPERATION_STATE_RUNNING,
		Steps: []*umbrav1.Step{{
			Kind: umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS, State: umbrav1.StepState_STEP_STATE_RUNNING,
			Progress: &umbrav1.Progress{DoneBytes: 1 << 30, TotalBytes: 4 << 30, BytesPerSecond: 100 << 20, TimeLeft: durationpb.New(31 * time.Second)},
		}},
	}
	for name, text := range map[string]string{
		"pairs": pairsTable([]*umbrav1.DRPair{pairNow}), "pair": pairPage(pairNow, fixed), "points": pointsTable(points, fixed),
		"hosts": hostsTable([]*umbrav1.Host{host}, fixed), "host": hostPage(host, fixed),
		"operations": operationsTable([]*umbrav1.Operation{running}, fixed), "operation": operationPage(running, fixed),
	} {
		file := filepath.Join("testdata", name+".golden")
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || string(want) != text {
			t.Errorf("%s: %v, is\n%s\nand was\n%s", name, err, text, want)
		}
	}
}

func TestThePointThatIsMeantIsFound(t *testing.T) {
	points := []*umbrav1.RecoveryPoint{pointNow(42, 90*time.Second), pointNow(41, 2*time.Hour)}
	for _, c := range []struct {
		choice choice
		want   string
	}{
		{choice{}, "rp-42"},
		{choice{BeforeAge: time.Minute}, "rp-42"},
		{choice{BeforeAge: 10 * time.Minute}, "rp-41"},
		{choice{BeforeAge: 3 * time.Hour}, ""},
		{choice{At: "2026-03-01T11:58:30Z"}, "rp-42"},
		{choice{At: "2026-03-01 12:58"}, "rp-41"},
		{choice{At: "12:59"}, "rp-42"},
		{choice{At: "10:59:59"}, ""},
	} {
		moment, err := c.choice.moment(fixed)
		if err != nil {
			t.Fatal(err)
		}
		point, err := newestUntil(points, moment)
		if short(point.GetName()) != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%+v is %s, %v; want %q", c.choice, point.GetName(), err, c.want)
		}
	}
	var usage usageError
	if _, err := (choice{At: "teatime"}).moment(fixed); !errors.As(err, &usage) {
		t.Errorf("teatime: %v", err)
	}
}

func TestProgressIsALinePerChangeOffATerminalAndOneLineOnIt(t *testing.T) {
	step := &umbrav1.Step{Kind: umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS, State: umbrav1.StepState_STEP_STATE_RUNNING, Progress: &umbrav1.Progress{TotalBytes: 1000}}
	operation := &umbrav1.Operation{Steps: []*umbrav1.Step{step, {Kind: umbrav1.StepKind_STEP_KIND_DELETE_RECOVERY_POINTS, State: umbrav1.StepState_STEP_STATE_PENDING}}}
	lines := map[bool]int{}
	for _, redraws := range []bool{true, false} {
		var out strings.Builder
		p := newProgress(&out, redraws)
		for done := int64(0); done <= 1000; done++ {
			step.State, step.Progress.DoneBytes = umbrav1.StepState_STEP_STATE_RUNNING, done
			p.show(operation, fixed)
		}
		step.State = umbrav1.StepState_STEP_STATE_DONE
		p.show(operation, fixed)
		p.show(operation, fixed)
		p.end()
		lines[redraws] = strings.Count(out.String(), "\n")
	}
	if lines[true] != 1 || lines[false] != 12 { // 0 to 100 percent by tenths, and the end
		t.Errorf("lines on a terminal and off it: %v", lines)
	}
}
