package replicate

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// shadowDisk is the state of a disk at the shadow: what is durable, and what is not.
type shadowDisk struct {
	durable, draft []byte
}

// testShadow is a shadow host behind the real transport, with a store of byte slices that forgets, when a stream ends, all that was not made durable.
type testShadow struct {
	t    *testing.T
	addr string

	mu         sync.Mutex
	disks      map[string]*shadowDisk
	checkpoint string
	clusters   map[string]uint64
	generation uint64
	points     int
	latest     string                  // checkpoint of the newest point
	content    map[string][]byte       // of the newest point
	hang       bool                    // the next stream stops taking anything after its first job began
	cutAfter   int                     // frames after which the next stream is cut; 0: never
	refuse     *umbrav1.Failure        // the answer to hello
	zeros      int                     // clusters that came as zeros
	data       int                     // clusters that came as data
	asked      int                     // checksums asked for
	stored     chan string             // gets the checkpoint of each point
	onPoint    func(checkpoint string) // called before a point is confirmed
	coverages  int                     // progress that was stored
	pairUID    string                  // of the last hello
}

var errCut = errors.New("cut by the test")

func startShadow(t *testing.T) *testShadow {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testShadow{
		t: t, addr: listener.Addr().String(), disks: map[string]*shadowDisk{}, clusters: map[string]uint64{},
		stored: make(chan string, 1000),
	}
	server := transport.NewServer(insecure.NewCredentials(), s.serve)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // ends with Stop
	}()
	t.Cleanup(func() { server.Stop(); <-done })
	return s
}

func (s *testShadow) serve(stream *transport.ShadowStream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.Control.GetHello()
	v := &shadowVisit{shadow: s, stream: stream, hello: hello}
	defer v.forget()
	if err := v.welcome(); err != nil {
		return err
	}
	for frames := 1; ; frames++ {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if v.hang && r.Clusters != nil {
			<-stream.Context().Done()
			return errCut
		}
		if v.cutAfter > 0 && frames >= v.cutAfter {
			return errCut
		}
		if err := v.take(r); err != nil {
			return err
		}
	}
}

// shadowVisit is one stream.
type shadowVisit struct {
	shadow   *testShadow
	stream   *transport.ShadowStream
	hello    *umbrav1.ReplicationHello
	job      string
	cutAfter int
	hang     bool
}

func (v *shadowVisit) disk(n uint32) *shadowDisk {
	return v.shadow.disks[v.hello.GetDisks()[n].GetTarget()]
}

func (v *shadowVisit) welcome() error {
	s := v.shadow
	s.mu.Lock()
	defer s.mu.Unlock()
	v.cutAfter, s.cutAfter = s.cutAfter, 0
	v.hang, s.hang = s.hang, false
	s.pairUID = v.hello.GetDrPairUid()
	if s.refuse != nil {
		return v.stream.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_Refused{
			Refused: &umbrav1.ReplicationRefused{Failure: s.refuse},
		}})
	}
	if g := v.hello.GetResyncGeneration(); g != s.generation {
		s.generation, s.checkpoint = g, ""
		clear(s.clusters)
	}
	coverage := &umbrav1.Coverage{Checkpoint: s.checkpoint}
	for _, d := range v.hello.GetDisks() {
		padded := int(clustersOf(d.GetSizeBytes())) * clusterBytes
		if s.disks[d.GetTarget()] == nil {
			s.disks[d.GetTarget()] = &shadowDisk{durable: make([]byte, padded), draft: make([]byte, padded)}
		}
		coverage.Clusters = append(coverage.Clusters, s.clusters[d.GetTarget()])
	}
	return v.stream.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_Welcome{Welcome: &umbrav1.ReplicationWelcome{
		Coverage: coverage, HasRecoveryPoint: s.points > 0, TrustsChecksums: true,
	}}})
}

// forget is the crash at the end of every stream.
func (v *shadowVisit) forget() {
	s := v.shadow
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.disks {
		copy(d.draft, d.durable)
	}
}

func (v *shadowVisit) take(r transport.Received) error {
	s := v.shadow
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Clusters != nil:
		s.data += len(r.Clusters.Sums)
		draft := v.disk(r.Clusters.Disk).draft
		copy(draft[r.Clusters.First*clusterBytes:], r.Clusters.Data)
		size := v.hello.GetDisks()[r.Clusters.Disk].GetSizeBytes()
		if len(bytes.Trim(draft[size:], "\x00")) > 0 {
			return errors.New("the padding of the last cluster is not zero")
		}
		r.Clusters.Release()
		return nil
	case r.Zeros != nil:
		s.zeros += int(r.Zeros.Count)
		clear(v.disk(r.Zeros.Disk).draft[r.Zeros.First*clusterBytes:][:r.Zeros.Count*clusterBytes])
		return nil
	}
	switch m := r.Control.GetMessage().(type) {
	case *umbrav1.MainMessage_BeginJob:
		v.job = m.BeginJob.GetCheckpoint()
		return nil
	case *umbrav1.MainMessage_ChecksumsRequest:
		return v.checksums(m.ChecksumsRequest)
	case *umbrav1.MainMessage_CoverageReached:
		return v.coverage(m.CoverageReached.GetCoverage())
	case *umbrav1.MainMessage_CompletePoint:
		return v.point()
	}
	return fmt.Errorf("unexpected message %v", r.Control)
}

func (v *shadowVisit) checksums(req *umbrav1.ChecksumsRequest) error {
	const partMax = 100 // an odd number, so that parts and chunks do not meet
	v.shadow.asked += int(req.GetClusters())
	for first, end := req.GetFirstCluster(), req.GetFirstCluster()+req.GetClusters(); first < end; {
		n := min(end-first, partMax)
		part := &umbrav1.ChecksumsPart{Disk: req.GetDisk(), FirstCluster: first}
		for i := range n {
			b := transport.SumOf(v.disk(req.GetDisk()).draft[(first+i)*clusterBytes:][:clusterBytes]).Bytes()
			part.Checksums = append(part.Checksums, b[:]...)
		}
		if err := v.stream.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_ChecksumsPart{ChecksumsPart: part}}); err != nil {
			return err
		}
		first += n
	}
	return nil
}

func (v *shadowVisit) persist() {
	for _, d := range v.shadow.disks {
		copy(d.durable, d.draft)
	}
}

func (v *shadowVisit) coverage(c *umbrav1.Coverage) error {
	s := v.shadow
	v.persist()
	s.coverages++
	s.checkpoint = c.GetCheckpoint()
	for i, d := range v.hello.GetDisks() {
		s.clusters[d.GetTarget()] = c.GetClusters()[i]
	}
	return v.stream.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_CoverageStored{
		CoverageStored: &umbrav1.CoverageStored{Coverage: c},
	}})
}

func (v *shadowVisit) point() error {
	s := v.shadow
	v.persist()
	s.points++
	s.checkpoint, s.latest = v.job, v.job
	s.content = map[string][]byte{}
	for _, d := range v.hello.GetDisks() {
		s.clusters[d.GetTarget()] = clustersOf(d.GetSizeBytes())
		s.content[d.GetTarget()] = bytes.Clone(s.disks[d.GetTarget()].durable[:d.GetSizeBytes()])
	}
	if s.onPoint != nil {
		s.onPoint(v.job)
	}
	select {
	case s.stored <- v.job:
	default:
		return errors.New("more points than the test takes")
	}
	return v.stream.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_PointStored{PointStored: &umbrav1.PointStored{
		RecoveryPoint: fmt.Sprintf("rp-%d", s.points), Checkpoint: v.job,
	}}})
}

func (s *testShadow) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// newest is the newest point: its checkpoint and the content of its disks, by target.
func (s *testShadow) newest() (string, map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.latest, maps.Clone(s.content)
}

// mustEqual compares the newest point with what the job of its checkpoint saw.
func mustEqual(t fatal, shadow *testShadow, source *testSource) {
	t.Helper()
	checkpoint, content := shadow.newest()
	view := source.view(checkpoint)
	if len(view) != len(content) || len(view) == 0 {
		t.Fatalf("the point of %s has disks %v, its job had %d", checkpoint, keysOf(content), len(view))
	}
	for i, want := range view {
		name := source.disks[i].Target
		got := content[name]
		if bytes.Equal(got, want) {
			continue
		}
		at := 0
		for j := range want {
			if j >= len(got) || got[j] != want[j] {
				at = j
				break
			}
		}
		t.Fatalf("the point of %s differs from disk %s at byte %d (cluster %d)", checkpoint, name, at, at/clusterBytes)
	}
}

type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}
