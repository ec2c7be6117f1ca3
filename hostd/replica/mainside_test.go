package replica_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// mainSide is a main host that does what the test says.
type mainSide struct {
	t      *testing.T
	stream *transport.MainStream
	cancel context.CancelFunc
}

func (g *rig) dial() *mainSide {
	g.t.Helper()
	ctx, cancel := context.WithCancel(g.t.Context())
	g.t.Cleanup(cancel)
	s, err := transport.Open(ctx, g.conn)
	if err != nil {
		g.t.Fatal(err)
	}
	return &mainSide{g.t, s, cancel}
}

// connect says hello, and fails the test if it is refused.
func (g *rig) connect(h *umbrav1.ReplicationHello) (*mainSide, *umbrav1.ReplicationWelcome) {
	g.t.Helper()
	m := g.dial()
	m.hello(h)
	got := m.recv()
	if got.GetWelcome() == nil {
		g.t.Fatalf("not welcome: %v", got)
	}
	return m, got.GetWelcome()
}

// refused says hello and returns the reason of the refusal.
func (g *rig) refused(h *umbrav1.ReplicationHello) *umbrav1.Failure {
	g.t.Helper()
	m := g.dial()
	m.hello(h)
	f := m.recv().GetRefused().GetFailure()
	if f == nil {
		g.t.Fatal("not refused")
	}
	if _, err := m.stream.Recv(); !errors.Is(err, io.EOF) {
		g.t.Errorf("after the refusal: %v", err)
	}
	return f
}

func (m *mainSide) hello(h *umbrav1.ReplicationHello) {
	m.t.Helper()
	m.send(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_Hello{Hello: h}})
}

func (m *mainSide) send(msg *umbrav1.MainMessage) {
	m.t.Helper()
	if err := m.stream.SendControl(msg); err != nil && !errors.Is(err, io.EOF) {
		m.t.Fatal(err)
	}
}

func (m *mainSide) recv() *umbrav1.ShadowMessage {
	m.t.Helper()
	got, err := m.stream.Recv()
	if err != nil {
		m.t.Fatal(err)
	}
	return got
}

func begin(checkpoint string, at time.Time) *umbrav1.MainMessage {
	return &umbrav1.MainMessage{Message: &umbrav1.MainMessage_BeginJob{BeginJob: &umbrav1.BeginJob{
		Checkpoint: checkpoint, PointTime: timestamppb.New(at), Consistency: umbrav1.Consistency_CONSISTENCY_APPLICATION,
		ServerXml: "<domain/>", Nvram: []byte("vars"),
	}}}
}

func (m *mainSide) begin(checkpoint string) {
	m.t.Helper()
	m.send(begin(checkpoint, time.Now()))
}

// data sends content from cluster first on; a rest that is no whole cluster is padded.
func (m *mainSide) data(disk uint32, first int, content []byte) {
	m.t.Helper()
	if err := sendData(m.stream, disk, first, content); err != nil && !errors.Is(err, io.EOF) {
		m.t.Fatal(err)
	}
}

func sendData(s *transport.MainStream, disk uint32, first int, content []byte) error {
	for len(content) > 0 {
		b := s.NewBuffer(transport.FrameClustersMax)
		clear(b.Data())
		n := copy(b.Data(), content)
		content = content[n:]
		var sums []transport.Sum
		for at := 0; at < n; at += cluster {
			sums = append(sums, transport.SumOf(b.Data()[at:at+cluster]))
		}
		if err := s.SendClusters(disk, uint64(first), sums, b); err != nil {
			return err
		}
		first += len(sums)
	}
	return nil
}

func complete() *umbrav1.MainMessage {
	return &umbrav1.MainMessage{Message: &umbrav1.MainMessage_CompletePoint{CompletePoint: &umbrav1.CompletePoint{}}}
}

// complete returns the new point's id.
func (m *mainSide) complete() string {
	m.t.Helper()
	m.send(complete())
	got := m.recv()
	if got.GetPointStored() == nil {
		m.t.Fatalf("no point: %v", got)
	}
	return got.GetPointStored().GetRecoveryPoint()
}

func covered(checkpoint string, clusters ...uint64) *umbrav1.MainMessage {
	return &umbrav1.MainMessage{Message: &umbrav1.MainMessage_CoverageReached{CoverageReached: &umbrav1.CoverageReached{
		Coverage: &umbrav1.Coverage{Checkpoint: checkpoint, Clusters: clusters},
	}}}
}

func (m *mainSide) covered(checkpoint string, clusters ...uint64) {
	m.t.Helper()
	m.send(covered(checkpoint, clusters...))
	if got := m.recv(); got.GetCoverageStored().GetCoverage().GetCheckpoint() != checkpoint {
		m.t.Fatalf("coverage is not confirmed: %v", got)
	}
}

// checksums asks for a range and returns the answer, 16 bytes for each cluster.
func (m *mainSide) checksums(disk uint32, first, clusters uint64) []byte {
	m.t.Helper()
	m.send(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_ChecksumsRequest{ChecksumsRequest: &umbrav1.ChecksumsRequest{
		Disk: disk, FirstCluster: first, Clusters: clusters,
	}}})
	var all []byte
	for uint64(len(all)) < clusters*16 {
		part := m.recv().GetChecksumsPart()
		if part.GetFirstCluster() != first+uint64(len(all))/16 || len(part.GetChecksums()) == 0 {
			m.t.Fatalf("part of %d bytes from %d", len(part.GetChecksums()), part.GetFirstCluster())
		}
		all = append(all, part.GetChecksums()...)
	}
	return all
}

// drain receives until the stream ends, and returns what came and how it ended.
func (m *mainSide) drain() (got []*umbrav1.ShadowMessage, err error) {
	for {
		msg, err := m.stream.Recv()
		if err != nil {
			return got, err
		}
		got = append(got, msg)
	}
}
