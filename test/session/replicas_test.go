package session_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/store"
)

// failover requests a failover at that control plane, as the client's request of that id.
func (p *plane) failover(t *testing.T, pair, id string) drpair.Record {
	rec, err := p.engine.Request(t.Context(), reconcile.Request{
		Pair: pair, Key: store.RequestKey{Method: "Failover", Caller: "engineer", ID: id},
		Event: func(operation string) drpair.Event {
			return drpair.Failover{Request: drpair.Request{OperationID: operation}, Point: "rp-1"}
		},
	})
	if err != nil {
		t.Errorf("failover: %v", err)
	}
	return rec
}

// holds waits until the host is known to have its session with that control plane.
func (p *plane) holds(t *testing.T, host string, holder *plane) {
	t.Helper()
	p.knows(t, host, func(h observed.Host) bool { return h.Connected && h.Holder == holder.registry.Self() })
}

func (p *plane) knows(t *testing.T, host string, is func(observed.Host) bool) {
	t.Helper()
	changes := p.observed.Connections().Subscribe()
	defer changes.Close()
	for {
		known, _ := p.observed.Host(host)
		if is(known) {
			return
		}
		select {
		case <-changes.C():
		case <-time.After(patience):
			t.Fatalf("host %s stays %+v", host, known)
		}
	}
}

func (p *plane) operations(t *testing.T, pair string) []drpair.Operation {
	t.Helper()
	operations, _, err := p.store.Operations(t.Context(), pair, 100, "")
	if err != nil {
		t.Fatal(err)
	}
	return operations
}

// The main host has its session with one control plane, the shadow host with the other. The same request comes to both at once.
func TestTwoControlPlanesCarryARequestOutOnce(t *testing.T) {
	s := newSite(t)
	one, two := s.plane, s.startPlane(t, "two", time.Minute)
	s.startHost(t, "a", t.TempDir(), "one")
	shadow := s.startHost(t, "b", t.TempDir(), "two")
	one.protect(t, "web")
	two.untilState(t, "web", drpair.Replicating)
	one.holds(t, "b", two)
	points, err := one.sessions.RecoveryPoints(t.Context(), "b", "web")
	if err != nil || len(points) != 1 {
		t.Errorf("asked through the other control plane: %v, %v", points, err)
	}
	for _, p := range []*plane{one, two} {
		p.reported(t, "web") // figures are shown at both
	}
	started := make(chan string, 8)
	var requests sync.WaitGroup
	for range cap(started) / 2 {
		for _, p := range []*plane{one, two} {
			requests.Go(func() {
				if rec := p.failover(t, "web", "1"); rec.Operation != nil {
					started <- rec.Operation.ID
				}
			})
		}
	}
	requests.Wait()
	close(started)
	operations := one.operations(t, "web")
	if len(operations) != 1 {
		t.Fatalf("the operations are %+v", operations)
	}
	for id := range started {
		if id != operations[0].ID {
			t.Errorf("a caller was told of operation %s", id)
		}
	}
	for _, p := range []*plane{one, two} {
		over := p.until(t, "web", func(entry store.Entry, _ bool) bool {
			return entry.Record.Pair.State == drpair.FailedOver && entry.Record.Pair.Fence.State == drpair.FenceConfirmed
		})
		if op := over.Record.Operation; op.ID != operations[0].ID || op.State != drpair.OperationSucceeded {
			t.Errorf("the operation is %+v", op)
		}
	}
	if tried := shadow.tried(); !slices.Equal(tried, []uint64{1}) {
		t.Errorf("the shadow host was told to run attempts %v", tried)
	}
}

func TestAFailoverGoesOnWhenItsControlPlaneDies(t *testing.T) {
	s := newSite(t)
	one, two := s.plane, s.startPlane(t, "two", time.Minute)
	s.startHost(t, "a", t.TempDir())
	shadow := s.startHost(t, "b", t.TempDir())
	one.protect(t, "web")
	one.untilState(t, "web", drpair.Replicating)
	shadow.hold()
	asked := one.failover(t, "web", "1")
	one.until(t, "web", func(entry store.Entry, _ bool) bool { return entry.Record.Pair.Wanted != nil })
	one.reported(t, "web")
	known, _ := one.observed.Host("b")
	dies, lives := one, two
	if known.Holder == two.registry.Self() {
		dies, lives = two, one
	}
	dies.stop()
	if again := lives.failover(t, "web", "1"); again.Operation == nil || again.Operation.ID != asked.Operation.ID {
		t.Errorf("the repeated request is %+v", again.Operation)
	}
	lives.holds(t, "a", lives)
	lives.holds(t, "b", lives)
	shadow.release()
	over := lives.until(t, "web", func(entry store.Entry, _ bool) bool {
		return entry.Record.Pair.State == drpair.FailedOver && entry.Record.Pair.Fence.State == drpair.FenceConfirmed
	})
	if op := over.Record.Operation; op.ID != asked.Operation.ID || op.State != drpair.OperationSucceeded {
		t.Errorf("the operation is %+v", op)
	}
	if tried, operations := shadow.tried(), lives.operations(t, "web"); !slices.Equal(tried, []uint64{1}) || len(operations) != 1 {
		t.Errorf("the shadow host was told to run attempts %v in %+v", tried, operations)
	}
}

// Nobody says of the main host that it is gone: the control plane that would is gone too.
func TestAFailoverDoesNotWaitForAMainHostThatDiedWithItsControlPlane(t *testing.T) {
	s := newSite(t)
	two := s.startPlane(t, "two", time.Second)
	main := s.startHost(t, "a", t.TempDir(), "two")
	s.startHost(t, "b", t.TempDir(), "one")
	s.plane.protect(t, "web")
	s.plane.untilState(t, "web", drpair.Replicating)
	s.plane.holds(t, "a", two)
	two.stop()
	main.stop()
	s.plane.failover(t, "web", "1")
	over := s.plane.untilState(t, "web", drpair.FailedOver)
	if over.Record.Pair.Fence.State != drpair.FenceUnconfirmed {
		t.Errorf("the fence is %+v", over.Record.Pair.Fence)
	}
}

// Hosts lose their connections between, and in the middle of, all that happens, and come back to either control plane.
func TestHostsThatMoveBetweenControlPlanesLoseNothingAndDoNothingTwice(t *testing.T) {
	const changes = 3
	s := newSite(t)
	planes := []*plane{s.plane, s.startPlane(t, "two", time.Minute)}
	main, shadow := s.startHost(t, "a", t.TempDir()), s.startHost(t, "b", t.TempDir())
	planes[0].protect(t, "web")
	planes[1].untilState(t, "web", drpair.Replicating)
	main.cut()
	planes[1].failover(t, "web", "1")
	shadow.cut()
	for i := range changes {
		planes[i%2].until(t, "web", func(entry store.Entry, _ bool) bool {
			pair := entry.Record.Pair
			return pair.State == drpair.FailedOver && pair.Active.Number == uint64(i+1)
		})
		planes[i%2].request(t, "web", func(r drpair.Request) drpair.Event { return drpair.ChangeRecoveryPoint{Request: r, Point: "rp-2"} })
		shadow.cut()
		main.cut()
	}
	over := planes[0].until(t, "web", func(entry store.Entry, _ bool) bool {
		pair := entry.Record.Pair
		return pair.State == drpair.FailedOver && pair.Active.Number == changes+1 && pair.Fence.State == drpair.FenceConfirmed
	})
	if active := over.Record.Pair.Active; active.Point != "rp-2" {
		t.Errorf("the active attempt is %+v", active)
	}
	if tried := shadow.tried(); !slices.Equal(tried, []uint64{1, 2, 3, 4}) {
		t.Errorf("the shadow host was told to run attempts %v", tried)
	}
	for _, op := range planes[0].operations(t, "web") {
		if op.State != drpair.OperationSucceeded {
			t.Errorf("an operation is %+v", op)
		}
	}
}
