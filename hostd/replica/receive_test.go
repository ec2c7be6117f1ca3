package replica_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

func TestAPointHoldsWhatWasSent(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	a, b := random(1, 40*cluster), random(2, 5*cluster+777)
	h := hello(1, vda(40), &umbrav1.ReplicatedDisk{Target: "vdb", SizeBytes: int64(len(b))})
	m, welcome := g.connect(h)
	if welcome.GetCoverage().GetCheckpoint() != "" || welcome.GetHasRecoveryPoint() || !welcome.GetTrustsChecksums() {
		t.Errorf("a new pair's welcome: %v", welcome)
	}
	m.begin("c1")
	m.data(0, 0, a)
	m.data(1, 0, b)
	first := m.complete()

	m.begin("c2")
	copy(a[7*cluster:], random(3, cluster))
	clear(a[20*cluster : 30*cluster])
	copy(b[5*cluster:], "the end")
	m.data(0, 7, a[7*cluster:8*cluster])
	if err := m.stream.SendZeros(0, 20, 10); err != nil {
		t.Fatal(err)
	}
	m.data(1, 5, b[5*cluster:])
	second := m.complete()

	g.check("vda", a)
	g.check("vdb", b)
	g.await("two points", func(s replica.Status) bool { return s.Count == 2 && string(s.Newest.ID) == second && s.StoreBytes > 0 })
	p, err := g.store().Point(recoverystore.PointID(first))
	if err != nil {
		t.Fatal(err)
	}
	if p.Epoch != 1 || p.Checkpoint != "c1" || p.Consistency != recoverystore.ApplicationConsistent ||
		p.ServerXML != "<domain/>" || string(p.Attachments[replica.NVRAMAttachment]) != "vars" || p.CreateTime.IsZero() {
		t.Errorf("the point does not hold the job: %+v", p)
	}
}

func TestACutStreamGoesOnFromTheConfirmedCoverage(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	image := random(1, 40*cluster)
	m, _ := g.connect(hello(1, vda(40)))
	m.begin("c1")
	m.data(0, 0, image[:16*cluster])
	m.covered("c1", 16)
	m.data(0, 16, image[16*cluster:])
	m.cancel()
	g.await("the end of the stream", func(s replica.Status) bool { return !s.Receiving })

	g.restart()
	g.apply(accepting(1))
	m, welcome := g.connect(hello(1, vda(40)))
	if c := welcome.GetCoverage(); c.GetCheckpoint() != "c1" || c.GetClusters()[0] != 16 {
		t.Fatalf("coverage %v", c)
	}
	g.check("vda", append(bytes.Clone(image[:16*cluster]), make([]byte, 24*cluster)...))
	m.begin("c2")
	m.data(0, 16, image[16*cluster:])
	m.complete()
	g.check("vda", image)
}

func TestADamagedFrameEndsTheStreamAndStoresNothing(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(16)))
	m.begin("c1")
	b := m.stream.NewBuffer(1)
	copy(b.Data(), random(1, cluster))
	sums := []transport.Sum{transport.SumOf(b.Data())}
	b.Data()[100] ^= 4
	if err := m.stream.SendClusters(0, 3, sums, b); err != nil {
		t.Fatal(err)
	}
	m.send(complete())
	if _, err := m.drain(); status.Code(err) != codes.DataLoss {
		t.Errorf("the stream ended with %v", err)
	}
	g.await("the end of the stream", func(s replica.Status) bool { return !s.Receiving })
	g.check("vda", make([]byte, 16*cluster))
	if n := len(g.store().Points()); n != 0 {
		t.Errorf("%d points", n)
	}
}

func TestAMainSideThatBreaksTheProtocolIsToldSo(t *testing.T) {
	cases := map[string]func(m *mainSide){
		"data before a job":       func(m *mainSide) { m.data(0, 0, random(1, cluster)) },
		"zeros before a job":      func(m *mainSide) { _ = m.stream.SendZeros(0, 0, 1) },
		"a point before a job":    func(m *mainSide) { m.send(complete()) },
		"coverage before a job":   func(m *mainSide) { m.send(covered("c", 1)) },
		"a job without a name":    func(m *mainSide) { m.begin("") },
		"clusters beyond a disk":  func(m *mainSide) { m.begin("c"); m.data(0, 15, random(1, 2*cluster)) },
		"zeros beyond a disk":     func(m *mainSide) { m.begin("c"); _ = m.stream.SendZeros(0, 16, 1) },
		"a disk of no number":     func(m *mainSide) { m.begin("c"); m.data(1, 0, random(1, cluster)) },
		"coverage of other disks": func(m *mainSide) { m.begin("c"); m.send(covered("c", 1, 1)) },
		"coverage beyond a disk":  func(m *mainSide) { m.begin("c"); m.send(covered("c", 17)) },
		"a second hello":          func(m *mainSide) { m.hello(hello(1, vda(16))) },
	}
	g := newRig(t)
	g.apply(accepting(1))
	for name, act := range cases {
		m, _ := g.connect(hello(1, vda(16)))
		act(m)
		_ = m.stream.CloseSend()
		if got, err := m.drain(); status.Code(err) != codes.InvalidArgument || len(got) != 0 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	m := g.dial()
	m.hello(hello(1))
	if _, err := m.drain(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("hello without disks: %v", err)
	}
}

func TestANewerStreamTakesThePlaceOfTheOlder(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	old, _ := g.connect(hello(1, vda(16)))
	old.begin("c1")
	old.data(0, 0, random(1, 16*cluster))
	m, _ := g.connect(hello(1, vda(16)))
	old.send(complete())
	if got, err := old.drain(); status.Code(err) != codes.Unavailable || len(got) != 0 {
		t.Errorf("the older stream: %v, %v", got, err)
	}
	image := random(2, 16*cluster)
	m.begin("c2")
	m.data(0, 0, image)
	m.complete()
	g.check("vda", image)
}

func TestChecksumsAreAnsweredAsTheMainSideComputesThem(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	image := random(1, 4500*cluster+5)
	m, _ := g.connect(hello(1, &umbrav1.ReplicatedDisk{Target: "vda", SizeBytes: int64(len(image))}))
	m.begin("c1")
	m.data(0, 0, image[:2*cluster])
	m.data(0, 4499, image[4499*cluster:])
	got := m.checksums(0, 0, 4501)
	zero, last := transport.ZeroSum().Bytes(), transport.SumOf(image[4499*cluster:4500*cluster]).Bytes()
	first := transport.SumOf(image[:cluster]).Bytes()
	for i, want := range map[int][]byte{0: first[:], 2: zero[:], 4498: zero[:], 4499: last[:], 4500: make([]byte, 16)} {
		if !bytes.Equal(got[i*16:][:16], want) {
			t.Errorf("cluster %d: %x, want %x", i, got[i*16:][:16], want)
		}
	}
}

func TestNoSpaceEndsTheStreamKeepsThePointsAndHeals(t *testing.T) {
	g := newRig(t)
	limited := func(generation uint64, bytes int64) replica.Spec {
		s := accepting(1)
		s.Generation = generation
		s.Policy = &umbrav1.Policy{Retention: &umbrav1.RetentionPolicy{StoreBytesMax: bytes}}
		return s
	}
	g.apply(limited(1, 50*cluster))
	image := random(1, 32*cluster)
	m, _ := g.connect(hello(1, vda(32)))
	m.begin("c1")
	m.data(0, 0, image)
	point := m.complete()
	m.begin("c2")
	m.data(0, 0, random(2, 32*cluster))
	m.send(complete())
	got, _ := m.drain()
	if len(got) != 1 || got[0].GetRefused().GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE {
		t.Fatalf("got %v", got)
	}
	s := g.replica.Status(pairID)
	if s.Failure.GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE || s.Count != 1 || string(s.Newest.ID) != point {
		t.Errorf("status %+v", s)
	}
	g.await("the end of the stream", func(s replica.Status) bool { return !s.Receiving })
	g.check("vda", image)

	g.apply(limited(2, 100*cluster))
	m, _ = g.connect(hello(1, vda(32)))
	m.begin("c3")
	m.data(0, 0, random(2, 32*cluster))
	m.complete()
	if f := g.replica.Status(pairID).Failure; f != nil {
		t.Errorf("still %v", f)
	}
}

func TestADiskThatShrankIsRefused(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(16)))
	m.begin("c1")
	m.data(0, 0, random(1, 16*cluster))
	m.complete()
	if f := g.refused(hello(1, vda(8))); f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_DISKS_CHANGED {
		t.Errorf("failure %v", f)
	}
	if g.replica.Status(pairID).Failure == nil {
		t.Error("the status does not say so")
	}
	_, welcome := g.connect(hello(1, vda(16), &umbrav1.ReplicatedDisk{Target: "vdb", SizeBytes: cluster}))
	if got := welcome.GetCoverage().GetClusters(); got[0] != 16 || got[1] != 0 {
		t.Errorf("a disk was added: coverage %v", got)
	}
	if f := g.replica.Status(pairID).Failure; f != nil {
		t.Errorf("still %v", f)
	}
}

func TestTheStoreStaysOpenAndIsShared(t *testing.T) {
	g := newRig(t)
	if _, err := g.replica.Store(pairID); !errors.Is(err, replica.ErrNoPair) {
		t.Errorf("unknown pair: %v", err)
	}
	g.apply(accepting(1))
	s := g.store()
	m, _ := g.connect(hello(1, vda(1)))
	m.begin("c1")
	m.complete()
	m.cancel()
	if len(s.Points()) != 1 || g.store() != s {
		t.Error("it is another store")
	}
	if p := s.Points()[0]; time.Since(p.CreateTime) > time.Minute {
		t.Errorf("point of %v", p.CreateTime)
	}
}

// A commit of a failover uses the store when no stream will ever come again and open it anew.
func TestAStoreThatAFailureHasStoppedIsOpenedAnewForWhoAsksNext(t *testing.T) {
	var broken atomic.Bool
	g := newRig(t, func(c *replica.Config) {
		c.Store.Faults = func(p recoverystore.Failpoint) error {
			if p == recoverystore.FailViewUnrecorded && broken.Load() {
				return errors.New("injected")
			}
			return nil
		}
	})
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(1)))
	m.begin("c1")
	point := recoverystore.PointID(m.complete())
	m.cancel()
	g.apply(stopping(2))
	if _, err := g.store().OpenView(t.Context(), point, recoverystore.ViewOptions{}); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	stopped := g.store()
	if err := stopped.CloseView(t.Context(), point); err == nil {
		t.Fatal("the fault has not struck: the test proves nothing")
	}
	broken.Store(false)
	if g.store() == stopped {
		t.Error("the stopped store is handed out again")
	}
	if err := g.store().CloseView(t.Context(), point); err != nil {
		t.Errorf("the store stays stopped: %v", err)
	}
	if len(g.store().Points()) != 1 {
		t.Errorf("points %v", g.store().Points())
	}
}
