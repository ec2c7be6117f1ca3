package replica_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

func hourly(s replica.Spec) replica.Spec {
	s.Policy = &umbrav1.Policy{Retention: &umbrav1.RetentionPolicy{Rules: []*umbrav1.RetentionRule{
		{MaxAge: durationpb.New(24 * time.Hour), Spacing: durationpb.New(time.Hour)},
	}}}
	return s
}

// pointsAt makes a point at each moment.
func (m *mainSide) pointsAt(times ...time.Time) {
	m.t.Helper()
	for i, at := range times {
		m.send(begin("c", at))
		m.data(0, 0, random(byte(i), cluster))
		m.complete()
	}
}

func TestRetentionKeepsWhatThePolicySays(t *testing.T) {
	g := newRig(t)
	g.apply(hourly(accepting(1)))
	m, _ := g.connect(hello(1, vda(4)))
	hour := time.Now().Truncate(time.Hour)
	m.pointsAt(hour.Add(-40*time.Hour), hour.Add(-3*time.Hour), hour.Add(-3*time.Hour+time.Minute),
		hour.Add(-2*time.Hour), hour.Add(-2*time.Hour+time.Minute))
	g.await("three points", func(s replica.Status) bool { return s.Count == 3 })
	var ids []string
	for _, p := range g.store().Points() {
		ids = append(ids, string(p.ID))
	}
	if want := []string{"rp-000000000002", "rp-000000000004", "rp-000000000005"}; !slices.Equal(ids, want) {
		t.Errorf("left are %v, want %v", ids, want)
	}
}

func TestNoPointVanishesWhileThePairIsStopped(t *testing.T) {
	beats := make(chan time.Time)
	g := newRig(t, func(c *replica.Config) { c.Clock, c.PruneEvery = beatClock{c.Clock, beats}, time.Minute })
	g.apply(accepting(1)) // the default keeps them all
	m, _ := g.connect(hello(1, vda(4)))
	hour := time.Now().Truncate(time.Hour)
	m.pointsAt(hour.Add(-2*time.Hour), hour.Add(-2*time.Hour+16*time.Minute), hour.Add(-2*time.Hour+31*time.Minute))
	g.apply(hourly(stopping(2)))
	for range 2 { // the second beat is taken only when the first is done with
		beats <- time.Now()
	}
	if n := len(g.store().Points()); n != 3 {
		t.Errorf("%d points are left", n)
	}
	g.apply(hourly(accepting(3)))
	beats <- time.Now()
	g.await("two points", func(s replica.Status) bool { return s.Count == 2 })
}

func TestAStopInterruptsRetentionWhichGoesOnLater(t *testing.T) {
	beats, deleting, release := make(chan time.Time), make(chan struct{}), make(chan struct{})
	var once sync.Once
	g := newRig(t, func(c *replica.Config) {
		c.Clock, c.PruneEvery = beatClock{c.Clock, beats}, time.Minute
		c.Store.Faults = func(p recoverystore.Failpoint) error {
			if p == recoverystore.FailDeleteMarked {
				once.Do(func() { close(deleting); <-release })
			}
			return nil
		}
	})
	used := func() int64 {
		u, err := g.store().Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.DataBytes / cluster
	}
	g.apply(hourly(accepting(1)))
	m, _ := g.connect(hello(1, vda(4)))
	hour := time.Now().Truncate(time.Hour)
	m.pointsAt(hour.Add(-2*time.Hour), hour.Add(-2*time.Hour+16*time.Minute), hour.Add(-time.Hour))
	<-deleting
	stopped := make(chan error, 1)
	go func() { stopped <- g.replica.Apply(t.Context(), hourly(stopping(2))) }()
	m2 := make(chan struct{})
	go func() { defer close(m2); _, _ = m.drain() }()
	// A spec that changes nothing does not wait at all.
	g.apply(hourly(accepting(1)))
	for !g.replica.Stopping(pairID) {
		runtime.Gosched()
	}
	close(release)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	<-m2
	if n := used(); n != 3 {
		t.Errorf("the store holds %d clusters after the stop: the deletion was not interrupted", n)
	}
	g.apply(hourly(accepting(3)))
	for range 2 {
		beats <- time.Now()
	}
	if n := used(); n != 2 {
		t.Errorf("the store holds %d clusters, want 2", n)
	}
}

// beatClock has the test say when the minute is over.
type beatClock struct {
	clock.Clock
	beats chan time.Time
}

func (c beatClock) NewTicker(d time.Duration) *time.Ticker {
	ticker := c.Clock.NewTicker(time.Hour)
	if d == time.Minute {
		ticker.C = c.beats
	}
	return ticker
}

func TestRestartReplicationTrustsNothing(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	image := random(1, 16*cluster)
	m, _ := g.connect(hello(1, vda(16)))
	m.begin("c1")
	m.data(0, 0, image)
	m.complete()

	spec := accepting(2)
	spec.ResyncGeneration = 2
	g.apply(spec)
	damage(t, filepath.Join(g.dir, "stores", pairID), image[5*cluster:6*cluster])
	h := hello(2, vda(16))
	h.ResyncGeneration = 2
	m, welcome := g.connect(h)
	if welcome.GetCoverage().GetCheckpoint() != "" || welcome.GetTrustsChecksums() || !welcome.GetHasRecoveryPoint() {
		t.Errorf("welcome %v", welcome)
	}
	sums := m.checksums(0, 0, 16)
	good := transport.SumOf(image[:cluster]).Bytes()
	if !bytes.Equal(sums[5*16:6*16], make([]byte, 16)) || !bytes.Equal(sums[:16], good[:]) {
		t.Errorf("the data was not read: %x", sums)
	}
	m.begin("c2")
	m.data(0, 5, image[5*cluster:6*cluster])
	m.complete()
	g.check("vda", image)
	g.restart()
	g.apply(spec)
	if _, welcome = g.connect(h); !welcome.GetTrustsChecksums() || welcome.GetCoverage().GetCheckpoint() != "c2" {
		t.Errorf("after the first point: %v", welcome)
	}
}

func TestARestartThatACrashInterruptsIsRepeated(t *testing.T) {
	var crash atomic.Bool
	g := newRig(t, func(c *replica.Config) {
		c.Store.Faults = func(p recoverystore.Failpoint) error {
			if p == recoverystore.FailDeleteMarked && crash.Load() {
				return errors.New("crash")
			}
			return nil
		}
	})
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(4)))
	m.pointsAt(time.Now(), time.Now())
	spec := accepting(2)
	spec.ResyncGeneration, spec.DeletePointsOnResync = 2, true
	h := hello(2, vda(4))
	h.ResyncGeneration = 2
	crash.Store(true)
	if err := g.replica.Apply(t.Context(), spec); err == nil {
		t.Fatal("the crash did not happen")
	}
	if f := g.refused(h); !f.GetRetryable() {
		t.Errorf("half a restart: %v", f)
	}
	crash.Store(false)
	g.restart()
	spec.DeletePointsOnResync = false // the journal knows
	g.apply(spec)
	_, welcome := g.connect(h)
	if len(g.store().Points()) != 0 || welcome.GetHasRecoveryPoint() || welcome.GetCoverage().GetCheckpoint() != "" {
		t.Errorf("%d points, welcome %v", len(g.store().Points()), welcome)
	}
	m, _ = g.connect(h)
	m.pointsAt(time.Now())
	g.apply(spec)
	if n := len(g.store().Points()); n != 1 {
		t.Errorf("applied again, it left %d points", n)
	}
	next := accepting(3)
	next.ResyncGeneration = 3
	g.apply(next)
	if n := len(g.store().Points()); n != 1 {
		t.Errorf("a later restart that asks for no deletion left %d points", n)
	}
}

func TestScrubFindsDamageAndTheNextStreamRepairsIt(t *testing.T) {
	var log bytes.Buffer
	t.Cleanup(func() { // when nothing writes to it any more
		about := regexp.MustCompile(`"stored data is damaged".*"pair":"` + pairID + `".*"epoch":1,"operation":"op-1","trace_id":"1a"`)
		if !about.Match(log.Bytes()) {
			t.Errorf("the log does not say whose data is damaged:\n%s", &log)
		}
	})
	g := newRig(t, func(c *replica.Config) {
		c.ScrubEvery, c.Log = 5*time.Millisecond, slog.New(slog.NewJSONHandler(&log, nil))
	})
	spec := accepting(1)
	spec.Operation, spec.TraceID = "op-1", "1a"
	g.apply(spec)
	image := random(1, 16*cluster)
	m, _ := g.connect(hello(1, vda(16)))
	m.begin("c1")
	m.data(0, 0, image)
	m.complete()
	damage(t, filepath.Join(g.dir, "stores", pairID), image[9*cluster:10*cluster])
	if _, err := m.drain(); status.Code(err) != codes.Unavailable {
		t.Fatalf("the stream ended with %v", err)
	}
	g.await("a damaged point", func(s replica.Status) bool { return s.Newest.Damaged })
	m, welcome := g.connect(hello(1, vda(16)))
	if c := welcome.GetCoverage(); c.GetCheckpoint() != "c1" || c.GetClusters()[0] != 9 {
		t.Fatalf("coverage %v", c)
	}
	if sums := m.checksums(0, 9, 1); !bytes.Equal(sums, make([]byte, 16)) {
		t.Errorf("checksum of the damaged cluster: %x", sums)
	}
	m.begin("c2")
	m.data(0, 9, image[9*cluster:10*cluster])
	m.complete()
	g.check("vda", image)
	g.await("a whole point", func(s replica.Status) bool { return s.Count == 2 && !s.Newest.Damaged })
}

// damage flips a bit of a cluster wherever the store keeps it.
func damage(t *testing.T, dir string, content []byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		at := bytes.Index(b, content)
		if at < 0 {
			continue
		}
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		if _, err := f.WriteAt([]byte{content[77] ^ 1}, int64(at)+77); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatal("the cluster is nowhere")
}

func TestDeleteLeavesNothingAndMayBeRepeated(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(4)))
	m.pointsAt(time.Now())
	for range 2 {
		if err := g.replica.Delete(t.Context(), pairID); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := m.drain(); len(got) != 1 || got[0].GetRefused() == nil {
		t.Errorf("the stream got %v", got)
	}
	if _, err := os.Stat(filepath.Join(g.dir, "stores", pairID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder: %v", err)
	}
	g.restart()
	if _, err := g.replica.Store(pairID); !errors.Is(err, replica.ErrNoPair) {
		t.Errorf("the store: %v", err)
	}
	g.apply(accepting(1))
	g.connect(hello(1, vda(8)))
	for _, bad := range []string{"", ".", "..", "a/b", "/etc", ".hidden"} {
		if err := g.replica.Delete(t.Context(), bad); err == nil {
			t.Errorf("%q was taken for a pair", bad)
		}
	}
}
