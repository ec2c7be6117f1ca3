package shadowserver

import (
	"errors"
	"fmt"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// act is an assignment and the phase that it must reach.
type act struct {
	assigned *umbrav1.Assignment
	phase    umbrav1.ShadowPhase
	check    func(t *testing.T, w *world, r *umbrav1.ShadowReport)
}

// play goes through the acts. When hostd is killed, a new one goes on with the same assignment.
func (w *world) play(acts []act) {
	w.t.Helper()
	l := w.start(acts[0].assigned)
	for _, a := range acts {
		r := l.act(a.assigned, a.phase)
		for r == nil {
			l.end()
			w.dieAt = 0
			l = w.start(a.assigned)
			r = l.phase(a.assigned, a.phase)
		}
		if a.check != nil {
			a.check(w.t, w, r)
		}
	}
	l.end()
}

// stride is 1, so that every place is tried; a short test tries every seventh.
func stride() int {
	if testing.Short() {
		return 7
	}
	return 1
}

// killEverywhere plays a story once for each place where hostd can be killed in it, and checks its end.
func killEverywhere(t *testing.T, points int, story func(w *world) []act, end func(t *testing.T, w *world)) {
	t.Helper()
	for k, killed := 1, true; killed; k += stride() {
		inBubble(t, points, func(t *testing.T, w *world) {
			acts := story(w)
			w.dieAt = k
			w.play(acts)
			killed = w.touches >= k
			end(t, w)
			if t.Failed() {
				t.Fatalf("when hostd is killed at place %d", k)
			}
		})
		if k > 1000 {
			t.Fatal("the story does not end")
		}
	}
}

func bootedOnce(t *testing.T, w *world) {
	t.Helper()
	seen := map[string]bool{}
	for _, disk := range w.target.starts {
		if seen[disk] {
			t.Errorf("a guest was restarted: %v", w.target.starts)
		}
		seen[disk] = true
	}
}

func TestKilledAnywhereFromFailoverToCommitItGetsThere(t *testing.T) {
	killEverywhere(t, 2, func(*world) []act {
		return []act{
			{assigned: assignment(1, 1, modeReceive), phase: receiving},
			{assigned: assignment(2, 2, modeRun, attemptOf(1, 1)), phase: running},
			{assigned: assignment(3, 3, modeRun, attemptOf(2, 0)), phase: running, check: func(t *testing.T, w *world, _ *umbrav1.ShadowReport) {
				wantRunning(t, w, 2)
				if !fileExists(w.attemptDir(1) + "/vda.qcow2") {
					t.Error("the first attempt's disks are lost before the commit")
				}
			}},
			{assigned: assignment(4, 3, modeCommit, attemptOf(2, 0), deletePoints), phase: committed, check: func(t *testing.T, w *world, _ *umbrav1.ShadowReport) {
				if n := len(w.points()); n > 0 {
					t.Errorf("%d points are left", n)
				}
			}},
			{assigned: assignment(5, 4, modeDelete), phase: deleted},
		}
	}, func(t *testing.T, w *world) {
		wantCommitted(t, w, 2)
		bootedOnce(t, w)
		if w.target.destroys != 1 || fileExists(w.replica.dir()) {
			t.Errorf("%d servers were stopped; the store is there: %v", w.target.destroys, fileExists(w.replica.dir()))
		}
	})
}

func TestKilledAnywhereInAChangeThatFailsTheOldServerRunsAndNothingIsLeftAfterwards(t *testing.T) {
	killEverywhere(t, 2, func(w *world) []act {
		w.target.startFails[w.attemptDir(2)+"/vda.qcow2"] = true
		return []act{
			{assigned: assignment(2, 2, modeRun, attemptOf(1, 1)), phase: running},
			{assigned: assignment(3, 3, modeRun, attemptOf(2, 0)), phase: failed, check: func(t *testing.T, w *world, r *umbrav1.ShadowReport) {
				wantRunning(t, w, 1)
				if r.GetRunningAttempt() != 1 || r.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR {
					t.Errorf("report is %v", r)
				}
			}},
			{assigned: assignment(4, 4, modeStop), phase: stopped},
			{assigned: assignment(5, 5, modeReceive), phase: receiving},
		}
	}, wantNothingLeft)
}

func TestKilledAnywhereBeforeADeleteNothingIsLeft(t *testing.T) {
	killEverywhere(t, 1, func(w *world) []act {
		w.target.dies[w.attemptDir(1)+"/vda.qcow2"] = 1
		return []act{
			{assigned: assignment(2, 2, modeRun, attemptOf(1, 0)), phase: failed},
			{assigned: assignment(3, 3, modeRun, attemptOf(2, 0)), phase: running},
			{assigned: assignment(4, 4, modeDelete), phase: deleted},
		}
	}, func(t *testing.T, w *world) {
		wantNothingLeft(t, w)
		if fileExists(w.replica.dir()) {
			t.Error("the store is left")
		}
	})
}

// TestAnyOneCallThatFailsLeavesARunningServerOrASayingFailure lets each call fail once, before or after its effect. A
// failover may fail for it; then the next one works. A commit goes on.
func TestAnyOneCallThatFailsLeavesARunningServerOrASayingFailure(t *testing.T) {
	for k, reached := 1, true; reached; k += stride() {
		inBubble(t, 2, func(t *testing.T, w *world) {
			reached = false
			var op string
			w.fault = func(touch int, name string) error {
				if touch != k {
					return nil
				}
				reached, op = true, name
				return errors.New("an injected failure of " + name)
			}
			failures := w.failoverTwiceAndCommit(t)
			if failures > 1 {
				t.Errorf("one failure made %d attempts fail", failures)
			}
			if t.Failed() {
				t.Fatalf("when call %d fails: %s", k, op)
			}
		})
		if k > 1000 {
			t.Fatal("the story does not end")
		}
	}
}

// failoverTwiceAndCommit tries a failover, a change, and then commits what runs, or goes on until something does.
func (w *world) failoverTwiceAndCommit(t *testing.T) (failures int) {
	l := w.start(assignment(1, 1, modeReceive))
	defer l.end()
	l.phase(assignment(1, 1, modeReceive), receiving)
	current := uint64(0)
	generation := uint64(1)
	next := func(mode umbrav1.ShadowMode, options ...func(*umbrav1.ShadowAssignment)) *umbrav1.Assignment {
		generation++
		return assignment(generation, generation, mode, options...)
	}
	for n := uint64(1); n <= 3 && (n < 3 || current == 0); n++ {
		a := next(modeRun, attemptOf(n, int(n%2)))
		l.role.Assign([]*umbrav1.Assignment{a})
		r := l.until(fmt.Sprintf("the end of attempt %d", n), func(r *umbrav1.AssignmentReport) bool {
			p := r.GetShadow().GetPhase()
			return r.GetGeneration() == a.GetGeneration() && (p == running || p == failed)
		})
		if r.GetPhase() == running {
			current = n
			continue
		}
		failures++
		if r.GetFailure().GetMessage() == "" || r.GetRunningAttempt() != current {
			t.Errorf("attempt %d: running attempt %d, want %d, failure %v", n, r.GetRunningAttempt(), current, r.GetFailure())
		}
		if current == 0 && len(w.target.defined()) > 0 {
			t.Errorf("servers %v are left by a failed attempt", w.target.defined())
		}
	}
	wantRunning(t, w, int(current))
	l.act(next(modeCommit, attemptOf(current, int(current%2)), deletePoints), committed)
	wantCommitted(t, w, int(current))
	return failures
}
