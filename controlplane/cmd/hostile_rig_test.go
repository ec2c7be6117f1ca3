package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/identity"
)

// besieged are two control planes with honest hosts a and b, and a host mallory that has a certificate as good as theirs.
type besieged struct {
	*replicas
	a, b *honest
}

// The pairs: one of honest hosts alone, two that mallory is in, and one that shows that the honest hosts go on.
const (
	theirs   = "theirs"
	asMain   = "as-main"
	asShadow = "as-shadow"
	beating  = "beating"
)

func besiege(t *testing.T, change ...func(*embed.Config)) *besieged {
	t.Helper()
	s := &besieged{replicas: startReplicas(t, change...)}
	for id, hosts := range map[string][2]string{
		theirs: {"a", "b"}, asMain: {"mallory", "b"}, asShadow: {"a", "mallory"}, beating: {"a", "b"},
	} {
		rec := drpair.New(id, "uid-"+id, drpair.Main{Host: hosts[0], Server: id, UUID: "u-" + id}, drpair.Shadow{Host: hosts[1]}, drpair.DefaultPolicy(), time.Now())
		if _, err := store.New(s.etcd, nil).Create(t.Context(), rec, store.RequestKey{}); err != nil {
			t.Fatal(err)
		}
	}
	s.a, s.b = s.honest(t, "a"), s.honest(t, "b")
	s.goesOn(t)
	return s
}

// honest is a host that does at once what it is assigned. It ends with the test.
type honest struct {
	say chan *umbrav1.SessionRequest
	// point: it has a recovery point of the pair that shows that it goes on.
	point atomic.Bool
}

func (s *besieged) honest(t *testing.T, id string) *honest {
	t.Helper()
	h := &honest{say: make(chan *umbrav1.SessionRequest, 100)}
	stream, err := umbrav1.NewHostSessionServiceClient(s.as(t, identity.Host(id), 0)).Session(t.Context(), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	hello := &umbrav1.SessionHello{Host: id, ProtocolVersion: 1}
	if err := stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		h.listen(ctx, t, id, stream)
	}()
	spoken := make(chan struct{})
	go func() {
		defer close(spoken)
		for {
			select {
			case request := <-h.say:
				_ = stream.Send(request) // listening tells why it failed
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-spoken; <-heard })
	return h
}

func (h *honest) listen(ctx context.Context, t *testing.T, id string, stream umbrav1.HostSessionService_SessionClient) {
	for {
		response, err := stream.Recv()
		if err != nil {
			if ctx.Err() == nil && t.Context().Err() == nil {
				t.Errorf("the session of honest host %s ended: %v", id, err)
			}
			return
		}
		for _, assignment := range response.GetAssignments().GetAssignments() {
			h.say <- reports(play(assignment, h.point.Load() && assignment.GetDrPair() == beating))
		}
		if query := response.GetQuery(); query != nil {
			h.say <- points(query)
		}
	}
}

// play does what is assigned; as shadow the host has a recovery point or none.
func play(a *umbrav1.Assignment, point bool) *umbrav1.AssignmentReport {
	report := &umbrav1.AssignmentReport{DrPair: a.GetDrPair(), DrPairUid: a.GetDrPairUid(), Generation: a.GetGeneration(), Epoch: a.GetEpoch()}
	if main := a.GetMain(); main != nil {
		phase := umbrav1.MainPhase_MAIN_PHASE_INITIAL_SYNC
		if main.GetMode() == umbrav1.MainMode_MAIN_MODE_FENCE {
			phase = umbrav1.MainPhase_MAIN_PHASE_FENCED
		}
		report.Role = &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{Phase: phase, ResyncGeneration: main.GetResyncGeneration()}}
		return report
	}
	shadow := &umbrav1.ShadowReport{Phase: umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING}
	if point {
		shadow.RecoveryPointCount = 1
	}
	if a.GetShadow().GetMode() != umbrav1.ShadowMode_SHADOW_MODE_RECEIVE {
		shadow.Phase, shadow.StoppedEpoch = umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED, a.GetEpoch()
	}
	if a.GetShadow().GetMode() == umbrav1.ShadowMode_SHADOW_MODE_RUN {
		shadow.Phase, shadow.Attempt = umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING, a.GetShadow().GetAttempt().GetNumber()
	}
	report.Role = &umbrav1.AssignmentReport_Shadow{Shadow: shadow}
	return report
}

func reports(all ...*umbrav1.AssignmentReport) *umbrav1.SessionRequest {
	return &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Reports{Reports: &umbrav1.AssignmentReports{Reports: all}}}
}

// points answers a question with one recovery point.
func points(query *umbrav1.HostQuery) *umbrav1.SessionRequest {
	point := &umbrav1.RecoveryPoint{Name: "drPairs/" + query.GetDrPair() + "/recoveryPoints/rp-1"}
	return &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_QueryAnswer{QueryAnswer: &umbrav1.QueryAnswer{
		Id: query.GetId(), Answer: &umbrav1.QueryAnswer_RecoveryPoints{
			RecoveryPoints: &umbrav1.RecoveryPointsAnswer{RecoveryPoints: []*umbrav1.RecoveryPoint{point}},
		},
	}}}
}

// goesOn waits until a report of an honest host has led to a stored change. It is behind everything that was reported
// before: pairs with news are evaluated in rounds.
func (s *besieged) goesOn(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	key := "/umbra/pairs/" + beating
	changes := s.etcd.Watch(ctx, key, clientv3.WithCreatedNotify())
	<-changes
	records := store.New(s.etcd, nil)
	was, err := records.Pair(ctx, beating)
	if err != nil {
		t.Fatal(err)
	}
	s.a.say <- &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Heartbeat{Heartbeat: &umbrav1.Heartbeat{}}}
	s.b.point.Store(!was.Record.Pair.HasPoint)
	s.b.say <- reports(play(&umbrav1.Assignment{
		DrPair: beating, DrPairUid: "uid-" + beating, Generation: 1, Epoch: 1,
		Role: &umbrav1.Assignment_Shadow{Shadow: &umbrav1.ShadowAssignment{Mode: umbrav1.ShadowMode_SHADOW_MODE_RECEIVE}},
	}, !was.Record.Pair.HasPoint))
	for {
		if response, ok := <-changes; !ok || response.Err() != nil {
			t.Fatal("what an honest host reports is not taken up any more")
		}
		if is, err := records.Pair(ctx, beating); err == nil && is.Record.Pair.HasPoint != was.Record.Pair.HasPoint {
			return
		}
	}
}

// stored is what etcd holds, without what is mallory's own and what shows that the others go on.
func (s *besieged) stored(t *testing.T) map[string]string {
	t.Helper()
	all, err := s.etcd.Get(t.Context(), "/umbra/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]string{}
	for _, kv := range all.Kvs {
		if key := string(kv.Key); !strings.HasSuffix(key, "/mallory") && !strings.HasSuffix(key, "/"+beating) {
			stored[key] = fmt.Sprintf("%d %s", kv.ModRevision, kv.Value)
		}
	}
	return stored
}

// raw passes messages on as the bytes that they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return v.([]byte), nil }

func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(data)
	return nil
}

func (raw) Name() string { return "proto" }

// mallory is a session that says any bytes.
type mallory struct {
	stream grpc.ClientStream
	end    func()
}

func (s *besieged) mallory(t *testing.T) *mallory {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	stream, err := s.as(t, identity.Host("mallory"), 0).NewStream(ctx, both, umbrav1.HostSessionService_Session_FullMethodName,
		grpc.ForceCodec(raw{}), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return &mallory{stream: stream, end: cancel}
}

func (m *mallory) say(t *testing.T, message []byte) {
	t.Helper()
	if err := m.stream.SendMsg(message); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
}

// hears is the next message.
func (m *mallory) hears() (*umbrav1.SessionResponse, error) {
	var message []byte
	if err := m.stream.RecvMsg(&message); err != nil {
		return nil, err
	}
	response := &umbrav1.SessionResponse{}
	return response, proto.Unmarshal(message, response)
}

// taken returns when everything that was said has been taken in: a question that mallory answers has its answer then.
func (s *besieged) taken(t *testing.T, m *mallory) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answered := make(chan error, 1)
	var asking sync.WaitGroup
	defer asking.Wait()
	asking.Go(func() {
		for { // the session may be a moment away from being asked
			_, err := s.clients[0].ListRecoveryPoints(ctx, &umbrav1.ListRecoveryPointsRequest{Parent: "drPairs/" + asShadow})
			if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
				answered <- err
				return
			}
		}
	})
	for {
		response, err := m.hears()
		if err != nil {
			cancel()
			return err
		}
		if query := response.GetQuery(); query != nil {
			m.say(t, encoded(t, points(query)))
			return <-answered
		}
	}
}

// refused is how the session ends.
func (m *mallory) refused() error {
	for {
		if _, err := m.hears(); err != nil {
			return err
		}
	}
}

func encoded(t *testing.T, message proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// asRole is a connection of an administrator to that control plane.
func (s *besieged) asRole(t *testing.T, at int) *grpc.ClientConn {
	t.Helper()
	return s.as(t, identity.Client("administrator", "engineer"), at)
}
