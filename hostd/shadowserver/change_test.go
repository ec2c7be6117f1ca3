package shadowserver

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func TestChangeStopsTheOldServerOnlyAfterTheNewOneWasChecked(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		first := assignment(2, 2, modeRun, attemptOf(1, 1))
		l := w.start(first)
		defer l.end()
		l.phase(first, running)
		w.target.cannotRun = hypervisor.ErrNotFound
		second := assignment(3, 3, modeRun, attemptOf(2, 0))
		r := l.act(second, failed)
		wantFailure(t, r, umbrav1.ErrorReason_ERROR_REASON_MACHINE_UNSUPPORTED, umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, "")
		if r.GetRunningAttempt() != 1 || w.target.destroys != 0 || fileExists(w.attemptDir(2)) {
			t.Errorf("running attempt %d, destroys %d, report %v", r.GetRunningAttempt(), w.target.destroys, r)
		}
		wantRunning(t, w, 1)
		l.act(assignment(4, 3, modeRun, attemptOf(1, 1)), running)

		w.target.cannotRun = nil
		r = l.act(assignment(5, 4, modeRun, attemptOf(3, 0)), running)
		if want := "PREPARE_DISKS:DONE STOP_SERVER:DONE DEFINE_SERVER:DONE START_SERVER:DONE VERIFY_SERVER:DONE"; kinds(r) != want {
			t.Errorf("steps are %s, want %s", kinds(r), want)
		}
		wantRunning(t, w, 3)
		if !fileExists(w.attemptDir(1) + "/vda.qcow2") {
			t.Error("what was done on the old server is lost")
		}
	})
}

func TestAChangeThatFailsAfterTheStopBringsTheOldServerBack(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		first := assignment(2, 2, modeRun, attemptOf(1, 1))
		l := w.start(first)
		defer l.end()
		l.phase(first, running)
		w.target.startFails[w.attemptDir(2)+"/vda.qcow2"] = true
		r := l.act(assignment(3, 3, modeRun, attemptOf(2, 0)), failed)
		wantFailure(t, r, umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR, umbrav1.StepKind_STEP_KIND_START_SERVER, "monitor")
		if r.GetRunningAttempt() != 1 {
			t.Errorf("running attempt is %d", r.GetRunningAttempt())
		}
		wantRunning(t, w, 1)
		r = l.act(assignment(4, 3, modeRun, attemptOf(1, 1)), running)
		if r.GetAttempt() != 1 || len(w.target.starts) != 2 {
			t.Errorf("going back to attempt 1: %v, starts %v", r, w.target.starts)
		}
	})
}

func TestAChangeWhoseOldServerCannotReturnSaysSo(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		first := assignment(2, 2, modeRun, attemptOf(1, 1))
		l := w.start(first)
		defer l.end()
		l.phase(first, running)
		w.target.startFails[w.attemptDir(1)+"/vda.qcow2"] = true
		w.target.startFails[w.attemptDir(2)+"/vda.qcow2"] = true
		r := l.act(assignment(3, 3, modeRun, attemptOf(2, 0)), failed)
		wantFailure(t, r, umbrav1.ErrorReason_ERROR_REASON_HYPERVISOR, umbrav1.StepKind_STEP_KIND_START_SERVER, "could not be started again")
		if r.GetRunningAttempt() != 0 || len(w.target.defined()) != 0 || !fileExists(w.attemptDir(1)+"/vda.qcow2") {
			t.Errorf("running attempt %d, servers %v", r.GetRunningAttempt(), w.target.defined())
		}
		l.act(assignment(4, 4, modeRun, attemptOf(3, 0)), running)
		wantRunning(t, w, 3)
	})
}

func TestANewerAssignmentEndsAnAttemptThatIsUnderWay(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		w.target.agentFails = 1 << 30
		first := assignment(2, 2, modeRun, attemptOf(1, 0))
		first.GetShadow().Policy.Verification = &umbrav1.VerificationPolicy{GuestAgent: true, Timeout: durationpb.New(time.Hour)}
		l := w.start(first)
		defer l.end()
		l.until("verification", func(*umbrav1.AssignmentReport) bool {
			s, ok := w.target.server(serverName)
			return ok && s.power == hypervisor.PowerRunning
		})
		begin := time.Now()
		r := l.act(assignment(3, 3, modeRun, attemptOf(2, 1)), running)
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %s", took)
		}
		if !strings.Contains(kinds(r), "STOP_SERVER:DONE") {
			t.Errorf("steps are %s", kinds(r))
		}
		wantRunning(t, w, 2)
	})
}

func TestGoingBackWhileAChangeIsUnderWayBringsTheOldServerBack(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		first := assignment(2, 2, modeRun, attemptOf(1, 0))
		l := w.start(first)
		defer l.end()
		l.phase(first, running)
		second := assignment(3, 3, modeRun, attemptOf(2, 1))
		second.GetShadow().Policy.Verification = &umbrav1.VerificationPolicy{TcpProbe: "10.0.0.5:80", Timeout: durationpb.New(time.Hour)}
		w.target.dialError = context.DeadlineExceeded
		l.role.Assign([]*umbrav1.Assignment{second})
		l.until("the second server", func(*umbrav1.AssignmentReport) bool {
			s, ok := w.target.server(serverName)
			return ok && s.power == hypervisor.PowerRunning && s.disks[0].Source == w.attemptDir(2)+"/vda.qcow2"
		})
		l.act(assignment(4, 4, modeRun, attemptOf(1, 0)), running)
		wantRunning(t, w, 1)
	})
}

func TestMoreChangesThanTheStoreHasViews(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		u, err := w.replica.store.Usage()
		if err != nil {
			t.Fatal(err)
		}
		changes := u.ViewSlots + 2
		for i := 1; i < changes; i++ {
			w.addPoint(i)
		}
		l := w.start(assignment(1, 1, modeRun, attemptOf(1, 0)))
		defer l.end()
		l.phase(assignment(1, 1, modeRun), running)
		for n := 2; n <= changes; n++ {
			l.act(assignment(uint64(n), uint64(n), modeRun, attemptOf(uint64(n), n-1)), running)
		}
		wantRunning(t, w, changes)
		for n := 1; n < changes; n++ {
			if !fileExists(w.attemptDir(n) + "/vda.qcow2") {
				t.Errorf("the disks of attempt %d are lost before the commit", n)
			}
		}
		l.act(assignment(1000, 1000, modeReceive), receiving)
		wantNothingLeft(t, w)
	})
}
