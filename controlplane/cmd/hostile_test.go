package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// grpcBytesMax is what gRPC takes as one message, and what clients take.
const grpcBytesMax = 4 << 20

var noTime = &timestamppb.Timestamp{Seconds: 1 << 62, Nanos: -7}

func helloOf(host string, version uint32) *umbrav1.SessionRequest {
	return &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: &umbrav1.SessionHello{Host: host, ProtocolVersion: version}}}
}

func inventoryOf(host *umbrav1.Host) *umbrav1.SessionRequest {
	return &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Inventory{Inventory: host}}
}

// mainOf and shadowOf are reports as good as they can be, of any pair.
func mainOf(pair string, report *umbrav1.MainReport) *umbrav1.AssignmentReport {
	return &umbrav1.AssignmentReport{
		DrPair: pair, DrPairUid: "uid-" + pair, Generation: 1, Epoch: 1, Role: &umbrav1.AssignmentReport_Main{Main: report},
	}
}

func shadowOf(pair string, report *umbrav1.ShadowReport) *umbrav1.AssignmentReport {
	return &umbrav1.AssignmentReport{
		DrPair: pair, DrPairUid: "uid-" + pair, Generation: 1, Epoch: 1, Role: &umbrav1.AssignmentReport_Shadow{Shadow: report},
	}
}

func with(report *umbrav1.AssignmentReport, change func(*umbrav1.AssignmentReport)) *umbrav1.AssignmentReport {
	change(report)
	return report
}

// everyPhase is a report of the pair in each phase that there is, and in some that there are not.
func everyPhase(pair string, main, shadow bool, change func(*umbrav1.AssignmentReport)) *umbrav1.SessionRequest {
	var all []*umbrav1.AssignmentReport
	for _, phase := range append(slices.Sorted(maps.Keys(umbrav1.MainPhase_name)), -1, 99) {
		if main {
			all = append(all, with(mainOf(pair, &umbrav1.MainReport{
				Phase: umbrav1.MainPhase(phase), ResyncGeneration: 1, Failure: &umbrav1.Failure{Message: "from mallory"}, Progress: &umbrav1.Progress{DoneBytes: 5},
			}), change))
		}
	}
	for _, phase := range append(slices.Sorted(maps.Keys(umbrav1.ShadowPhase_name)), -1, 99) {
		if shadow {
			all = append(all, with(shadowOf(pair, &umbrav1.ShadowReport{
				Phase: umbrav1.ShadowPhase(phase), StoppedEpoch: 9, RecoveryPointCount: 5, Attempt: 1, Failure: &umbrav1.Failure{Message: "from mallory"},
			}), change))
		}
	}
	return reports(all...)
}

func asItIs(*umbrav1.AssignmentReport) {}

// monstrous is a report of mallory's own pair in which nothing is as it must be.
func monstrous() *umbrav1.AssignmentReport {
	long := strings.Repeat("é", 100<<10)
	failure := &umbrav1.Failure{
		Code: -1, Reason: 4711, Step: -3, Side: 99, Message: long, PossibleCauses: slices.Repeat([]string{"x"}, 10_000),
		RecommendedActions: []string{long}, OccurTime: noTime,
	}
	report := shadowOf(asShadow, &umbrav1.ShadowReport{
		Phase: 77, RecoveryPointCount: -5, StoreBytes: -1, NewestRecoveryPoint: long, NewestRecoveryPointTime: noTime, ServerState: 55, Failure: failure,
		Steps: slices.Repeat([]*umbrav1.Step{{
			Kind: 99, State: 99, StartTime: noTime, EndTime: noTime, Message: "x",
			Progress: &umbrav1.Progress{DoneBytes: -1, TotalBytes: -1 << 63, TimeLeft: &durationpb.Duration{Seconds: 1 << 62}},
		}}, 5_000),
		Conditions: slices.Repeat([]*umbrav1.Condition{{Type: long[:2000], Status: 9, Message: "x", LastTransitionTime: noTime}}, 500),
	})
	report.ObserveTime = noTime
	report.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, 500<<10)))
	return report
}

// attack is what mallory says, after hello unless it says that itself, and what it gets; OK means that its session goes on.
type attack struct {
	says  func(t *testing.T) [][]byte
	mute  bool // no hello
	wants codes.Code
}

func says(messages ...*umbrav1.SessionRequest) func(*testing.T) [][]byte {
	return func(t *testing.T) (all [][]byte) {
		for _, message := range messages {
			all = append(all, encoded(t, message))
		}
		return all
	}
}

func saysBytes(messages ...[]byte) func(*testing.T) [][]byte {
	return func(*testing.T) [][]byte { return messages }
}

// padded is a sign of life of exactly that many bytes, which are some millions.
func padded(size int) []byte {
	const overhead = 10 // two tags, and two lengths of four bytes
	message := &umbrav1.Heartbeat{}
	message.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, size-overhead)))
	data, _ := proto.Marshal(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Heartbeat{Heartbeat: message}})
	return data
}

func attacks() map[string]attack {
	thousands := make([]*umbrav1.AssignmentReport, 0, 4_000)
	for i := range 2_000 {
		thousands = append(thousands, mainOf(fmt.Sprint("none-", i), &umbrav1.MainReport{}), shadowOf(fmt.Sprint("none-", i), &umbrav1.ShadowReport{}))
	}
	return map[string]attack{
		"another host's name":          {mute: true, says: says(helloOf("a", 1)), wants: codes.PermissionDenied},
		"another host's name, long":    {mute: true, says: says(helloOf(strings.Repeat("a", 1<<20), 1)), wants: codes.PermissionDenied},
		"no name":                      {mute: true, says: says(helloOf("", 1)), wants: codes.InvalidArgument},
		"a protocol that is not":       {mute: true, says: says(helloOf("mallory", 0)), wants: codes.FailedPrecondition},
		"reports before hello":         {mute: true, says: says(everyPhase(theirs, true, true, asItIs)), wants: codes.InvalidArgument},
		"garbage for hello":            {mute: true, says: saysBytes(bytes.Repeat([]byte{0xff}, 100)), wants: codes.Internal},
		"hello twice":                  {says: says(helloOf("a", 1)), wants: codes.InvalidArgument},
		"an empty message":             {says: saysBytes(nil)},
		"a message of another kind":    {says: saysBytes(protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1))},
		"garbage":                      {says: saysBytes([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), wants: codes.Internal},
		"half a message":               {says: func(t *testing.T) [][]byte { m := encoded(t, reports(monstrous())); return [][]byte{m[:len(m)/2]} }, wants: codes.Internal},
		"a text that is no text":       {says: saysBytes([]byte("\x1a\x05\x0a\x03\x0a\x01\xff")), wants: codes.Internal},
		"a message at the limit":       {says: saysBytes(padded(grpcBytesMax))},
		"a message over the limit":     {says: saysBytes(padded(grpcBytesMax + 1)), wants: codes.ResourceExhausted},
		"an inventory without an end":  {says: says(inventoryOf(&umbrav1.Host{Networks: slices.Repeat([]string{"net"}, 150_000)})), wants: codes.InvalidArgument},
		"another host's inventory":     {says: says(inventoryOf(&umbrav1.Host{Name: "hosts/a", DataAddress: "mallory:1", HostdVersion: "from mallory"}))},
		"an address that is none":      {says: says(inventoryOf(&umbrav1.Host{DataAddress: strings.Repeat("x", 300<<10) + ":1"}))},
		"answers nobody asked for":     {says: says(points(&umbrav1.HostQuery{Id: 1 << 60, DrPair: theirs}))},
		"reports of another's pair":    {says: says(everyPhase(theirs, true, true, asItIs))},
		"the other role of its pairs":  {says: says(everyPhase(asMain, false, true, asItIs), everyPhase(asShadow, true, false, asItIs))},
		"reports without a role":       {says: says(reports(with(mainOf(theirs, nil), func(r *umbrav1.AssignmentReport) { r.Role = nil })))},
		"thousands of unknown pairs":   {says: says(reports(thousands...), reports(thousands...), reports(thousands...))},
		"a pair of an endless name":    {says: says(everyPhase(theirs+"/"+strings.Repeat("x", 20<<10), true, true, asItIs))},
		"an epoch that is over":        {says: says(everyPhase(asMain, true, false, func(r *umbrav1.AssignmentReport) { r.Epoch = 0 }))},
		"an epoch that is not yet":     {says: says(everyPhase(asMain, true, false, func(r *umbrav1.AssignmentReport) { r.Epoch = 1 << 63 }), everyPhase(asShadow, false, true, func(r *umbrav1.AssignmentReport) { r.Epoch = 2 }))},
		"a generation that is not yet": {says: says(everyPhase(asMain, true, false, func(r *umbrav1.AssignmentReport) { r.Generation = 1 << 63 }))},
		"an earlier pair":              {says: says(everyPhase(asMain, true, false, func(r *umbrav1.AssignmentReport) { r.DrPairUid = "uid-" + theirs }))},
		"phases that do not belong": {says: says(reports(
			mainOf(asMain, &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_FENCED, ResyncGeneration: 1}),
			mainOf(asMain, &umbrav1.MainReport{Phase: umbrav1.MainPhase_MAIN_PHASE_RELEASED, ResyncGeneration: 1}),
			shadowOf(asShadow, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_DELETED}),
			shadowOf(asShadow, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED, StoppedEpoch: 1 << 63}),
			shadowOf(asShadow, &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, Attempt: 1, RunningAttempt: 1}),
		))},
		"nothing as it must be": {says: says(reports(monstrous()))},
	}
}

// A host whose key was stolen, or whose hostd is not ours, has a certificate and may say anything.
func TestAHostileHostChangesNothingOfOthersAndIsToldSo(t *testing.T) {
	s := besiege(t)
	before := s.stored(t)
	all := attacks()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		attack := all[name]
		t.Run(name, func(t *testing.T) {
			m := s.mallory(t)
			defer m.end()
			if !attack.mute {
				m.say(t, encoded(t, helloOf("mallory", 1)))
			}
			for _, message := range attack.says(t) {
				m.say(t, message)
			}
			end := m.refused
			if attack.wants == codes.OK {
				end = func() error { return s.taken(t, m) }
			}
			if err := end(); status.Code(err) != attack.wants || len(status.Convert(err).Message()) > 8<<10 {
				t.Errorf("mallory is told %.300v", err)
			}
			s.goesOn(t)
			after := s.stored(t)
			for key := range maps.Keys(before) {
				if after[key] != before[key] {
					t.Errorf("%s was\n%s\nand is\n%s", key, before[key], after[key])
				}
			}
			if len(after) != len(before) {
				t.Errorf("there were %d keys, and are %d", len(before), len(after))
			}
			s.shown(t)
		})
	}
}

// shown looks at what people are shown, at both control planes: it can be sent and read, and says of others what they said.
func (s *besieged) shown(t *testing.T) {
	t.Helper()
	for at, client := range s.clients {
		pairs, err := client.ListDRPairs(soon(t), &umbrav1.ListDRPairsRequest{})
		if err != nil || len(pairs.GetDrPairs()) != 4 {
			t.Fatalf("%d pairs, %v", len(pairs.GetDrPairs()), err)
		}
		hosts, err := umbrav1.NewHostServiceClient(s.asRole(t, at)).ListHosts(soon(t), &umbrav1.ListHostsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, message := range []proto.Message{pairs, hosts} {
			text, err := protojson.Marshal(message)
			if err != nil {
				t.Errorf("what is shown cannot be written as JSON: %v", err)
			}
			if len(text) > 512<<10 {
				t.Errorf("%T takes %d bytes", message, len(text))
			}
		}
		for _, pair := range pairs.GetDrPairs() {
			said := pair.GetReplication()
			if pair.GetName() == "drPairs/"+theirs && (pair.GetFailure() != nil || said.GetProgress() != nil || said.GetRecoveryPointCount() != 0) {
				t.Errorf("the others' pair is shown as %v", pair)
			}
			if said.GetStoreBytes() < 0 || said.GetRecoveryPointCount() < 0 {
				t.Errorf("figures below zero are shown: %v", said)
			}
		}
		for _, host := range hosts.GetHosts() {
			if host.GetName() == "hosts/a" && (host.GetDataAddress() != "" || host.GetHostdVersion() != "") {
				t.Errorf("another host is shown as %v", host)
			}
		}
	}
}

// Times that cannot be stored would make every write of the pair fail, that of the end of its operation too.
func TestAnOperationEndsWhateverItsHostSaysOfIt(t *testing.T) {
	s := besiege(t)
	m := s.mallory(t)
	defer m.end()
	m.say(t, encoded(t, helloOf("mallory", 1)))
	asked := make(chan *umbrav1.Operation, 1)
	ctx := soon(t)
	go func() {
		for { // until it is known that there is a point, and whom to ask for it
			response, err := s.clients[0].Failover(ctx, &umbrav1.FailoverRequest{Name: "drPairs/" + asShadow, RecoveryPoint: "drPairs/" + asShadow + "/recoveryPoints/rp-1"})
			if code := status.Code(err); ctx.Err() == nil && (code == codes.FailedPrecondition || code == codes.Unavailable) {
				continue
			}
			if err != nil {
				t.Error(err)
			}
			asked <- response.GetOperation()
			return
		}
	}()
	failed := false
	for !failed {
		response, err := m.hears()
		if err != nil {
			t.Fatal(err)
		}
		if query := response.GetQuery(); query != nil {
			m.say(t, encoded(t, points(query)))
		}
		for _, assignment := range response.GetAssignments().GetAssignments() {
			report := play(assignment, true)
			if shadow := assignment.GetShadow(); shadow.GetMode() == umbrav1.ShadowMode_SHADOW_MODE_RUN {
				failed = true
				report.Role = &umbrav1.AssignmentReport_Shadow{Shadow: &umbrav1.ShadowReport{
					Phase: umbrav1.ShadowPhase_SHADOW_PHASE_FAILED, StoppedEpoch: assignment.GetEpoch(), Attempt: shadow.GetAttempt().GetNumber(),
					Steps:   []*umbrav1.Step{{Kind: umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, State: umbrav1.StepState_STEP_STATE_FAILED, StartTime: noTime, EndTime: noTime}},
					Failure: &umbrav1.Failure{Reason: 4711, Message: "from mallory", OccurTime: noTime},
				}}
			}
			m.say(t, encoded(t, reports(report)))
		}
	}
	operation := s.ended(t, (<-asked).GetName())
	if operation.GetState() != umbrav1.OperationState_OPERATION_STATE_FAILED || operation.GetFailure().GetMessage() != "from mallory" {
		t.Errorf("the operation is %v", operation)
	}
}

func TestTheNewerOfTwoSessionsOfOneHostIsTheOneThatCounts(t *testing.T) {
	s := besiege(t)
	older, newer := s.mallory(t), s.mallory(t)
	defer older.end()
	defer newer.end()
	for _, m := range []*mallory{older, newer} {
		m.say(t, encoded(t, helloOf("mallory", 1)))
		if response, err := m.hears(); err != nil || response.GetWelcome() == nil {
			t.Fatalf("the session begins with %v, %v", response, err)
		}
	}
	if err := older.refused(); status.Code(err) != codes.Aborted {
		t.Errorf("the older session ended with %v", err)
	}
	older.say(t, encoded(t, inventoryOf(&umbrav1.Host{HostdVersion: "older"})))
	newer.say(t, encoded(t, inventoryOf(&umbrav1.Host{HostdVersion: "newer"})))
	if err := s.taken(t, newer); err != nil {
		t.Fatal(err)
	}
	shown, err := umbrav1.NewHostServiceClient(s.asRole(t, 0)).GetHost(soon(t), &umbrav1.GetHostRequest{Name: "hosts/mallory"})
	if err != nil || shown.GetHost().GetHostdVersion() != "newer" || !shown.GetHost().GetConnected() {
		t.Errorf("the host is %v, %v", shown, err)
	}
}
