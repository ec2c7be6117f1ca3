package session

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/brief"
)

func reportsOf(all ...*umbrav1.AssignmentReport) *umbrav1.SessionRequest {
	return &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Reports{Reports: &umbrav1.AssignmentReports{Reports: all}}}
}

func inventoryOf(host *umbrav1.Host) *umbrav1.SessionRequest {
	return &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Inventory{Inventory: host}}
}

// honest are messages as hosts send them.
func honest() []*umbrav1.SessionRequest {
	at := &timestamppb.Timestamp{Seconds: 1_900_000_000, Nanos: 5}
	failure := &umbrav1.Failure{
		Code: 14, Reason: umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR, Step: umbrav1.StepKind_STEP_KIND_START_SERVER, Side: umbrav1.Side_SIDE_SHADOW,
		Message: "libvirt: no", PossibleCauses: []string{"one", "two"}, RecommendedActions: []string{"three"}, Retryable: true, OccurTime: at,
	}
	steps := []*umbrav1.Step{{
		Kind: umbrav1.StepKind_STEP_KIND_VERIFY_SERVER, State: umbrav1.StepState_STEP_STATE_RUNNING, StartTime: at, Message: "running",
		Progress: &umbrav1.Progress{DoneBytes: 1, TotalBytes: 1 << 62, TimeLeft: durationpb.New(5)},
	}}
	servers := slices.Repeat([]*umbrav1.Server{{
		Name: "web", Uuid: "u", MemoryBytes: 1 << 30, Cpus: 4, Networks: []string{"default"}, PowerState: umbrav1.PowerState_POWER_STATE_RUNNING,
		Disks: []*umbrav1.Disk{{Target: "vda", SizeBytes: 1 << 40, Format: "qcow2", Source: "/var/lib/libvirt/images/web.qcow2", TracksChanges: true}},
	}}, 1000)
	points := slices.Repeat([]*umbrav1.RecoveryPoint{{Name: "drPairs/p/recoveryPoints/rp-1", PointTime: at, ChangedBytes: 1, Epoch: 1 << 63}}, 1000)
	return []*umbrav1.SessionRequest{
		{Message: &umbrav1.SessionRequest_Hello{Hello: &umbrav1.SessionHello{Host: "a", Instance: "1", ProtocolVersion: 1}}},
		{Message: &umbrav1.SessionRequest_Heartbeat{Heartbeat: &umbrav1.Heartbeat{}}},
		inventoryOf(&umbrav1.Host{DataAddress: "[2001:db8::1]:7444", HostdVersion: "1", Capacity: &umbrav1.HostCapacity{Cpus: 2, MemoryBytes: 1}, Servers: servers}),
		reportsOf(
			&umbrav1.AssignmentReport{DrPair: "p", DrPairUid: "u", Generation: 1 << 63, Epoch: 2, ObserveTime: at, Role: &umbrav1.AssignmentReport_Main{
				Main: &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_ERROR, Failure: failure, FenceMessage: "off"},
			}},
			&umbrav1.AssignmentReport{DrPair: "p", Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{
				Phase: umbrav1.ShadowPhase_SHADOW_PHASE_FAILED, Steps: steps, Failure: failure, NewestRecoveryPointTime: at, RecoveryPointCount: 7,
				Conditions: []*umbrav1.Condition{{Type: "ReadyForFailover", Status: umbrav1.ConditionStatus_CONDITION_STATUS_TRUE, LastTransitionTime: at}},
			}}},
		),
		{Message: &umbrav1.SessionRequest_QueryAnswer{QueryAnswer: &umbrav1.QueryAnswer{Id: 1, Answer: &umbrav1.QueryAnswer_RecoveryPoints{
			RecoveryPoints: &umbrav1.RecoveryPointsAnswer{RecoveryPoints: points},
		}}}},
		{Message: &umbrav1.SessionRequest_QueryAnswer{QueryAnswer: &umbrav1.QueryAnswer{Id: 1, Code: 5, ErrorMessage: "no", Answer: &umbrav1.QueryAnswer_Diagnostics{
			Diagnostics: &umbrav1.DiagnosticsAnswer{Files: []*umbrav1.DiagnosticsFile{{Name: "log", Content: make([]byte, 2<<20)}}},
		}}}},
	}
}

func TestWhatAnHonestHostSaysIsTakenAsItIs(t *testing.T) {
	for _, request := range honest() {
		levelled := proto.CloneOf(request)
		level(levelled)
		if !proto.Equal(levelled, request) || oversized(levelled.GetInventory()) {
			t.Errorf("%T came out different, or too large", request.GetMessage())
		}
	}
}

func TestWhatNoHostCanMeanCountsAsNotSaid(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	never := &timestamppb.Timestamp{Seconds: 1 << 60}
	request := reportsOf(&umbrav1.AssignmentReport{DrPair: "p", ObserveTime: never, Role: &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{
		Phase: 99, RecoveryPointCount: -1, StoreBytes: -1 << 63, NewestRecoveryPointTime: never, RunningAttempt: 3,
		Failure: &umbrav1.Failure{
			Reason: umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR, Message: "x" + long, Code: -4, OccurTime: &timestamppb.Timestamp{Nanos: -1},
			PossibleCauses: slices.Repeat([]string{long}, 100), RecommendedActions: []string{"Look at the log.", long},
		},
		Steps: slices.Repeat([]*umbrav1.Step{{State: -1, StartTime: never, Progress: &umbrav1.Progress{
			DoneBytes: 5, TotalBytes: -5, TimeLeft: &durationpb.Duration{Seconds: -1},
		}}}, 1000),
	}}})
	level(request)
	report := request.GetReports().GetReports()[0]
	shadow := report.GetShadow()
	step, failure := shadow.GetSteps()[0], shadow.GetFailure()
	if shadow.GetPhase() != 0 || shadow.GetRecoveryPointCount() != 0 || shadow.GetStoreBytes() != 0 || shadow.GetNewestRecoveryPointTime() != nil ||
		report.GetObserveTime() != nil || failure.GetCode() != -4 || failure.GetOccurTime() != nil || step.GetState() != 0 || step.GetStartTime() != nil ||
		step.GetProgress().GetTotalBytes() != 0 || step.GetProgress().GetTimeLeft() != nil {
		t.Errorf("left is %.2000v", report)
	}
	if shadow.GetRunningAttempt() != 3 || step.GetProgress().GetDoneBytes() != 5 || failure.GetRecommendedActions()[0] != "Look at the log." {
		t.Errorf("what can be meant is lost: %.2000v", report)
	}
	if !utf8.ValidString(failure.GetMessage()) || len(shadow.GetSteps()) != reportListMax || proto.Size(request) > 512<<10 {
		t.Errorf("a text was cut in the middle of a character, or there is too much: %d steps, %d bytes", len(shadow.GetSteps()), proto.Size(request))
	}
}

// A host's address is passed on to the main hosts of its pairs. One that is too long would end their sessions.
func TestAnAddressThatIsNoneIsNotPassedOn(t *testing.T) {
	for address, want := range map[string]string{
		"10.0.0.1:7444": "10.0.0.1:7444", "host": "", "a:b:c": "", strings.Repeat("x", 300) + ":1": "", "": "",
	} {
		request := inventoryOf(&umbrav1.Host{DataAddress: address})
		level(request)
		if got := request.GetInventory().GetDataAddress(); got != want {
			t.Errorf("%.20s became %q", address, got)
		}
	}
}

// levelFields knows what to do with the kinds of fields that there are. Whoever adds one of another kind has to decide.
func TestHostsSayNothingOfAKindThatIsNotLevelled(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var look func(message protoreflect.MessageDescriptor)
	look = func(message protoreflect.MessageDescriptor) {
		if seen[message.FullName()] {
			return
		}
		seen[message.FullName()] = true
		for i := range message.Fields().Len() {
			field := message.Fields().Get(i)
			switch kind := field.Kind(); {
			case field.IsMap():
				t.Errorf("%s is a map", field.FullName())
			case kind == protoreflect.MessageKind:
				look(field.Message())
			case slices.Contains([]protoreflect.Kind{
				protoreflect.BoolKind, protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind,
				protoreflect.Int32Kind, protoreflect.Int64Kind, protoreflect.Uint32Kind, protoreflect.Uint64Kind,
			}, kind):
			default:
				t.Errorf("%s is a %v", field.FullName(), kind)
			}
		}
	}
	look((&umbrav1.SessionRequest{}).ProtoReflect().Descriptor())
}

// Whatever bytes a host sends: what is left of them can be stored and shown, and is left alone the second time.
func FuzzWhatIsLeftOfAHostsMessageCanBeKept(f *testing.F) {
	for _, request := range honest() {
		if proto.Size(request) > 1<<16 {
			continue
		}
		data, err := proto.Marshal(request)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		request := &umbrav1.SessionRequest{}
		if proto.Unmarshal(data, request) != nil {
			return
		}
		level(request)
		again := proto.CloneOf(request)
		level(again)
		if !proto.Equal(request, again) {
			t.Errorf("levelled twice it differs: %v, %v", request, again)
		}
		if _, err := proto.Marshal(request); err != nil {
			t.Errorf("what is left cannot be encoded: %v", err)
		}
		checkKept(t, request.ProtoReflect())
	})
}

func checkKept(t *testing.T, m protoreflect.Message) {
	if !meant(m) || len(m.GetUnknown()) > 0 {
		t.Errorf("left is %v", m)
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		values := []protoreflect.Value{value}
		if field.IsList() {
			values = values[:0]
			for i := range value.List().Len() {
				values = append(values, value.List().Get(i))
			}
		}
		for _, value := range values {
			switch field.Kind() {
			case protoreflect.MessageKind:
				checkKept(t, value.Message())
			case protoreflect.StringKind:
				if len(value.String()) > brief.TextBytesMax+len("…") {
					t.Errorf("%s has %d bytes", field.FullName(), len(value.String()))
				}
			case protoreflect.Int32Kind, protoreflect.Int64Kind:
				if value.Int() < 0 && field.Name() != "code" {
					t.Errorf("%s is %d", field.FullName(), value.Int())
				}
			case protoreflect.EnumKind:
				if field.Enum().Values().ByNumber(value.Enum()) == nil {
					t.Errorf("%s is %d", field.FullName(), value.Enum())
				}
			default:
			}
		}
		return true
	})
}
