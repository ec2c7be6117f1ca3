package replica_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const epochOver = umbrav1.ErrorReason_ERROR_REASON_EPOCH_OVER

// state is everything in a store that a stream could change.
type state struct {
	Points int
	Draft  recoverystore.DraftState
	Bytes  int64
	Sums   []recoverystore.Checksum
}

func (g *rig) state(clusters int) state {
	g.t.Helper()
	s := g.store()
	u, err := s.Usage()
	if err != nil {
		g.t.Fatal(err)
	}
	out := state{len(s.Points()), s.Draft(), u.DataBytes, make([]recoverystore.Checksum, clusters)}
	if err := s.Checksums(g.t.Context(), "vda", 0, out.Sums, recoverystore.FromIndex); err != nil {
		g.t.Fatal(err)
	}
	return out
}

// hammer sends whole cycles as fast as it can until the stream ends. Every one of them changes the store.
func (m *mainSide) hammer(clusters int) {
	for i := 0; ; i++ {
		at := time.Now()
		err := m.stream.SendControl(begin(fmt.Sprint("c", i), at))
		if err == nil {
			err = sendData(m.stream, 0, 0, random(byte(i), clusters*cluster))
		}
		if err == nil && i%3 == 0 {
			err = m.stream.SendControl(covered(fmt.Sprint("c", i), 3))
		}
		if err == nil {
			err = m.stream.SendControl(complete())
		}
		if err != nil {
			return
		}
	}
}

func TestNoByteOfAnOverEpochReachesTheStoreAfterApplyReturned(t *testing.T) {
	const clusters, rounds = 24, 25
	g := newRig(t)
	for round := range uint64(rounds) {
		epoch := 2*round + 1
		g.apply(accepting(epoch))
		var ended []chan struct{}
		for range 2 { // the second takes the place of the first while that writes
			m, _ := g.connect(hello(epoch, vda(clusters)))
			sent, received := make(chan struct{}), make(chan struct{})
			go func() { defer close(sent); m.hammer(clusters) }()
			go func() { defer close(received); _, _ = m.drain() }()
			ended = append(ended, sent, received)
		}
		before := g.replica.Status(pairID).Newest.ID
		if round%2 == 0 {
			g.await("a point", func(s replica.Status) bool { return s.Newest.ID > before })
		}
		stop := stopping(epoch)
		if round%3 == 0 { // a newer epoch that is accepted ends the old one as well
			stop = accepting(epoch + 1)
		}
		g.apply(stop)
		after := g.state(clusters)
		if after.Draft.Open {
			t.Fatal("a draft is open")
		}
		if f := g.refused(hello(epoch, vda(clusters))); f.GetReason() != epochOver {
			t.Fatalf("round %d: %v", round, f)
		}
		for _, c := range ended {
			<-c
		}
		if diff := cmp.Diff(after, g.state(clusters)); diff != "" {
			t.Fatalf("round %d: the store changed after Apply returned: %s", round, diff)
		}
	}
}

func TestAStreamThatIsCutLearnsThatItsEpochIsOver(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(4))
	m, _ := g.connect(hello(4, vda(4)))
	g.apply(stopping(5))
	got, err := m.drain()
	if len(got) != 1 || got[0].GetRefused().GetFailure().GetReason() != epochOver {
		t.Errorf("got %v, %v", got, err)
	}
	if s := g.replica.Status(pairID); s.StoppedEpoch != 5 || s.Receiving || s.Accepting {
		t.Errorf("status %+v", s)
	}
}

func TestRefusedEpochsSurviveARestart(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(2))
	g.apply(stopping(7))
	g.restart()
	if s := g.replica.Status(pairID); s.StoppedEpoch != 7 {
		t.Errorf("status before the first spec: %+v", s)
	}
	if f := g.refused(hello(7, vda(4))); f == nil {
		t.Error("accepted without a spec")
	}
	for _, old := range []replica.Spec{accepting(2), stopping(6)} {
		if err := g.replica.Apply(t.Context(), old); !errors.Is(err, replica.ErrStale) {
			t.Errorf("epoch %d: %v", old.Epoch, err)
		}
	}
	if err := g.replica.Apply(t.Context(), accepting(7)); !errors.Is(err, replica.ErrRefusedEpoch) {
		t.Errorf("accepting epoch 7 again: %v", err)
	}
	g.apply(stopping(7))
	if f := g.refused(hello(7, vda(4))); f.GetReason() != epochOver {
		t.Errorf("failure %v", f)
	}
	g.apply(accepting(8))
	g.connect(hello(8, vda(4)))
}

func TestOnlyTheAssignedStreamIsWelcome(t *testing.T) {
	g := newRig(t)
	if f := g.refused(hello(3, vda(4))); f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND || !f.GetRetryable() {
		t.Errorf("unknown pair: %v", f)
	}
	g.apply(accepting(3))
	other := hello(3, vda(4))
	other.ResyncGeneration = 2
	cases := map[string]struct {
		hello     *umbrav1.ReplicationHello
		peer      string
		reason    umbrav1.ErrorReason
		retryable bool
	}{
		"older epoch":   {hello(2, vda(4)), mainHost, epochOver, false},
		"newer epoch":   {hello(4, vda(4)), mainHost, umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED, true},
		"other restart": {other, mainHost, umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED, true},
		"other host":    {hello(3, vda(4)), "evil", umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED, false},
	}
	for name, c := range cases {
		g.peer = c.peer
		f := g.refused(c.hello)
		if f.GetReason() != c.reason || f.GetRetryable() != c.retryable || f.GetSide() != umbrav1.Side_SIDE_SHADOW || f.GetMessage() == "" {
			t.Errorf("%s: %v", name, f)
		}
	}
	g.peer = mainHost
	g.connect(hello(3, vda(4)))
}

func TestApplyingTheSameSpecAgainLeavesTheStreamAlone(t *testing.T) {
	g := newRig(t)
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(4)))
	m.begin("c1")
	again := accepting(1)
	again.Generation = 9
	g.apply(again)
	m.data(0, 0, random(1, 4*cluster))
	m.complete()
	moved := again
	moved.MainHost = "another"
	g.apply(moved)
	if got, _ := m.drain(); len(got) != 1 || got[0].GetRefused() == nil {
		t.Errorf("the main host changed; the stream got %v", got)
	}
}

// A pair that was removed while this host was away, and made again under its id: neither its assignments nor its streams
// are taken for the other's.
func TestTwoPairsOfOneIdAreNeverMixed(t *testing.T) {
	of := func(uid string, spec replica.Spec) replica.Spec {
		spec.UID = uid
		return spec
	}
	from := func(uid string, epoch uint64) *umbrav1.ReplicationHello {
		h := hello(epoch, vda(4))
		h.DrPairUid = uid
		return h
	}
	g := newRig(t)
	g.apply(accepting(5)) // of a control plane that told no uid
	g.apply(of("first", accepting(5)))
	m, _ := g.connect(from("first", 5))
	m.pointsAt(time.Now())
	for _, spec := range []replica.Spec{of("second", accepting(1)), of("second", accepting(9)), of("second", stopping(9))} {
		if err := g.replica.Apply(t.Context(), spec); !errors.Is(err, replica.ErrOtherPair) {
			t.Errorf("another pair's spec of epoch %d: %v", spec.Epoch, err)
		}
	}
	g.restart()
	if s := g.replica.Status(pairID); s.UID != "first" {
		t.Errorf("after a restart it is the pair of uid %q", s.UID)
	}
	if err := g.replica.Delete(t.Context(), pairID); err != nil {
		t.Fatal(err)
	}
	g.apply(of("second", accepting(1)))
	if points := g.store().Points(); len(points) != 0 {
		t.Errorf("the new pair has the points %v", points)
	}
	for _, stranger := range []*umbrav1.ReplicationHello{from("first", 1), from("first", 5), from("", 1)} {
		if f := g.refused(stranger); f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_STATE_NOT_ALLOWED {
			t.Errorf("a stream of the pair of uid %q: %v", stranger.GetDrPairUid(), f)
		}
	}
	g.connect(from("second", 1))
}
