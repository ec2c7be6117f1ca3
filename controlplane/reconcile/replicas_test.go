package reconcile_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// The main host has its session with another control plane, which takes its reports up. Here it is neither gone nor heard.
func TestAFailoverWaitsForAMainHostThatIsConnectedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _, c := replicating(t)
		defer b.stop()
		there := m.session("a", true)
		b.hosts.Connect("a", there, "another control plane", time.Now())
		b.main(there, 1, umbrav1.MainPhase_MAIN_PHASE_ERROR) // shown here, and taken up there
		time.Sleep(2 * grace)
		if p := pairOf(t, m); p.State != drpair.Replicating {
			t.Fatalf("the pair is %s, %+v", p.State, p.Failure)
		}
		b.request(t, failover)
		b.shadow(c, 2, stoppedAt(2))
		if p := pairOf(t, m); !p.Stopped || p.Fence.Settled() {
			t.Fatalf("the fence was not waited for: %+v", p.Fence)
		}
		b.main(there, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
		if p := pairOf(t, m); p.Fence.Settled() {
			t.Fatalf("a report that came to another control plane was taken up here: %+v", p.Fence)
		}
		time.Sleep(drpair.DefaultPolicy().FenceTimeout + time.Second)
		if p := pairOf(t, m); p.Fence.State != drpair.FenceUnconfirmed {
			t.Errorf("the fence is waited for without an end: %+v", p.Fence)
		}
	})
}

// A control plane that was stalled: sessions have begun elsewhere, and it does not know yet.
func TestWhatAStalledControlPlaneFindsIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, a, c := replicating(t)
		defer b.stop()
		b.request(t, failover)
		m.session("b", true)
		b.shadow(c, 2, stoppedAt(2))
		if p := pairOf(t, m); p.Stopped {
			t.Error("a report of a session that is over was stored")
		}
		b.shadow(b.connect("b"), 2, stoppedAt(2))
		newer := m.session("a", true)
		b.hosts.Disconnect("a", a, true, time.Now())
		if p := pairOf(t, m); !p.Stopped || p.Fence.Settled() {
			t.Errorf("a host that is connected elsewhere was called gone: %+v", p.Fence)
		}
		// It learns.
		b.hosts.Connect("a", newer, "another control plane", time.Now())
		if p := pairOf(t, m); p.Fence.Settled() || p.State != drpair.FailoverProcessing {
			t.Errorf("the pair is %s, %+v", p.State, p.Fence)
		}
	})
}

func TestAHostThatHasLostItsControlPlaneIsExpectedBackAndOneThatLeftIsNot(t *testing.T) {
	for name, left := range map[string]bool{"left": true, "lost its control plane": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, m, a, c := replicating(t)
				defer b.stop()
				b.request(t, failover)
				b.main(a, 2, umbrav1.MainPhase_MAIN_PHASE_REPLICATING) // it has heard
				b.shadow(c, 2, stoppedAt(2))
				m.session("a", false)
				b.hosts.Disconnect("a", a, left, time.Now())
				if p := pairOf(t, m); p.Fence.Settled() != left {
					t.Errorf("the fence is %+v", p.Fence)
				}
				again := b.connect("a")
				b.main(again, 2, umbrav1.MainPhase_MAIN_PHASE_FENCED)
				if p := pairOf(t, m); p.Fence.State != drpair.FenceConfirmed {
					t.Errorf("when the host is back the fence is %+v", p.Fence)
				}
			})
		})
	}
}

// The process that has seen a step begin is gone. The one that takes over gives the step its whole budget, and ends it then.
func TestAControlPlaneThatTakesOverEndsWhatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, m, _, _ := replicating(t)
		b.request(t, failover)
		synctest.Wait()
		b.stop()
		time.Sleep(time.Hour)
		b = newBench(t, m, m).run(t)
		defer b.stop()
		if p := pairOf(t, m); p.State != drpair.FailoverProcessing {
			t.Fatalf("the restart made the pair %s", p.State)
		}
		until(t, m, "p", inState(drpair.FailoverError))
		if p := pairOf(t, m); p.Failure == nil || len(drpair.Allowed(p)) == 0 {
			t.Errorf("the pair is %+v", p)
		}
	})
}
