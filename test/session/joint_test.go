package session_test

import (
	"slices"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
)

func TestAPairsWholeLifeRunsThroughTheSessions(t *testing.T) {
	s := newSite(t)
	main, shadow := s.startHost(t, "a", t.TempDir()), s.startHost(t, "b", t.TempDir())
	p := s.plane
	p.protect(t, "web")
	p.protect(t, "other")
	p.untilState(t, "web", drpair.Replicating)
	p.reported(t, "web") // so the shadow host is there
	points, err := p.sessions.RecoveryPoints(t.Context(), "b", "web")
	if err != nil || len(points) != 1 {
		t.Fatalf("asked for the points: %v, %v", points, err)
	}

	asked := p.request(t, "web", func(r drpair.Request) drpair.Event { return drpair.Failover{Request: r, Point: "rp-1"} })
	failedOver := p.untilState(t, "web", drpair.FailedOver)
	if op := failedOver.Record.Operation; op.ID != asked.Operation.ID || op.State != drpair.OperationSucceeded {
		t.Errorf("the failover's operation is %+v", op)
	}
	p.until(t, "web", func(entry store.Entry, _ bool) bool { return entry.Record.Pair.Fence.State == drpair.FenceConfirmed })

	p.request(t, "web", func(r drpair.Request) drpair.Event { return drpair.ChangeRecoveryPoint{Request: r, Point: "rp-2"} })
	p.until(t, "web", func(entry store.Entry, _ bool) bool {
		pair := entry.Record.Pair
		return pair.State == drpair.FailedOver && pair.Active.Point == "rp-2"
	})
	p.request(t, "web", func(r drpair.Request) drpair.Event { return drpair.CommitFailover{Request: r} })
	p.untilState(t, "web", drpair.Committed)
	p.request(t, "web", func(r drpair.Request) drpair.Event { return drpair.Delete{Request: r} })
	p.until(t, "web", func(_ store.Entry, ok bool) bool { return !ok })
	for _, h := range []*host{main, shadow} {
		h.untilAssigned(t, "other")
	}
	if other, _ := p.cache.Get("other"); other.Record.Pair.State != drpair.Replicating {
		t.Errorf("the other pair is %s", other.Record.Pair.State)
	}
}

// untilAssigned waits for a role to hold exactly these pairs.
func (h *host) untilAssigned(t *testing.T, pairs ...string) {
	t.Helper()
	for {
		select {
		case set := <-h.sets:
			held := make([]string, len(set))
			for i, assignment := range set {
				held[i] = assignment.GetDrPair()
			}
			if slices.Equal(held, pairs) {
				return
			}
		case <-time.After(patience):
			t.Fatalf("host %s is not assigned %v", h.id, pairs)
		}
	}
}

func TestARestartOfTheControlPlaneChangesNothing(t *testing.T) {
	s := newSite(t)
	s.startHost(t, "a", t.TempDir())
	s.startHost(t, "b", t.TempDir())
	s.plane.protect(t, "web")
	before := s.plane.untilState(t, "web", drpair.Replicating)
	s.plane.stop()
	s.plane = s.startPlane(t, "one", time.Minute)
	s.plane.reported(t, "web")
	// A request goes behind everything that the reports have led to.
	after := s.plane.request(t, "web", func(drpair.Request) drpair.Event { return drpair.Pause{} })
	if after.Pair.Generation != before.Record.Pair.Generation+1 {
		t.Errorf("the restart wrote the pair: generation %d before, %d after one request", before.Record.Pair.Generation, after.Pair.Generation)
	}
}

func TestARestartOfHostdKeepsItsAssignmentsAndChangesNothing(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	main := s.startHost(t, "a", dir)
	s.startHost(t, "b", t.TempDir())
	s.plane.protect(t, "web")
	before := s.plane.untilState(t, "web", drpair.Replicating)
	main.untilAssigned(t, "web")
	main.stop()
	main = s.startHost(t, "a", dir)
	if live := <-main.lives; live {
		t.Error("what was kept is called live")
	}
	if set := <-main.sets; len(set) != 1 || set[0].GetDrPair() != "web" {
		t.Errorf("kept is %v", set)
	}
	for !<-main.lives {
	}
	s.plane.reported(t, "web")
	after := s.plane.request(t, "web", func(drpair.Request) drpair.Event { return drpair.Pause{} })
	if after.Pair.Generation != before.Record.Pair.Generation+1 {
		t.Errorf("the restart wrote the pair: generation %d before, %d after one request", before.Record.Pair.Generation, after.Pair.Generation)
	}
}

func TestAMainHostThatStaysAwayIsReportedAndAFailoverDoesNotWaitForIt(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	main := s.startHost(t, "a", dir)
	s.startHost(t, "b", t.TempDir())
	s.plane.protect(t, "web")
	s.plane.untilState(t, "web", drpair.Replicating)
	main.stop()
	failed := s.plane.untilState(t, "web", drpair.ReplicationError)
	if failed.Record.Pair.Failure.Reason != drpair.ReasonMainUnreachable {
		t.Errorf("the failure is %+v", failed.Record.Pair.Failure)
	}
	s.plane.request(t, "web", func(r drpair.Request) drpair.Event { return drpair.Failover{Request: r, Point: "rp-1"} })
	over := s.plane.untilState(t, "web", drpair.FailedOver)
	if over.Record.Pair.Fence.State != drpair.FenceUnconfirmed {
		t.Errorf("the fence is %+v", over.Record.Pair.Fence)
	}
	s.startHost(t, "a", dir)
	s.plane.until(t, "web", func(entry store.Entry, _ bool) bool { return entry.Record.Pair.Fence.State == drpair.FenceConfirmed })
}
