package flow_test

import (
	"os"
	"strings"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// What a block pull has copied is in QEMU's memory for a while after it has ended; see docs/faults.md.
func TestCommitLosesNothingWhenTheServerCrashesAsItsPullsEnd(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{DiskBytes: []int64{256 << 20, 64 << 20}})
	w.protect(nil)
	w.waitPoints(3)
	if err := w.Main.Kill(w.ctx()); err != nil {
		t.Fatal(err)
	}
	w.failover("")
	answer, err := w.Failover.CommitFailover(w.ctx(), &umbrav1.CommitFailoverRequest{Name: pairName, DeleteRecoveryPoints: true})
	if err != nil {
		t.Fatal(err)
	}
	crashes := 0
	for _, backed := range []int{1, 0} {
		if w.crashOnceBacked(answer.GetOperation().GetName(), backed) {
			crashes++
		}
	}
	w.end(answer.GetOperation(), nil, succeeded)
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED)
	if state, err := w.Shadow.Virsh(w.ctx(), "domstate", guest); err == nil && strings.HasPrefix(state, "shut off") {
		t.Log("the last crash came after the commit")
		if _, err := w.Shadow.Virsh(w.ctx(), "start", guest); err != nil {
			t.Fatal(err)
		}
	}
	w.standsAlone()
	log, err := os.ReadFile(w.Shadow.QEMULogPath(guest))
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Count(string(log), "reason=crashed"); all != crashes {
		t.Errorf("the server crashed %d times by itself", all-crashes)
	}
}

// crashOnceBacked kills the shadow server's QEMU as soon as no more than so many of its disks have a backing file. false means
// that the operation ended before.
func (w *world) crashOnceBacked(operation string, disks int) bool {
	w.t.Helper()
	ctx := w.ctx()
	for {
		xml, err := w.Shadow.Virsh(ctx, "dumpxml", guest)
		if err == nil && strings.Contains(xml, "<domain type='qemu' id=") && strings.Count(xml, "<backingStore type=") <= disks {
			break
		}
		op, err := w.Failover.GetOperation(ctx, &umbrav1.GetOperationRequest{Name: operation})
		if err != nil {
			w.t.Fatal(err)
		}
		if op.GetOperation().GetEndTime() != nil {
			w.t.Logf("the commit had ended before no more than %d disks were seen to have a backing file", disks)
			return false
		}
	}
	if err := w.Shadow.KillGuest(ctx, guest); err != nil {
		w.t.Fatal(err)
	}
	return true
}
