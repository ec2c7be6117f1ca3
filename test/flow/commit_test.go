package flow_test

import (
	"strings"
	"testing"
	"time"

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
	w.crashOnceBacked(1)
	w.crashOnceBacked(0)
	w.end(answer.GetOperation(), nil, succeeded)
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_COMMITTED)
	if state, err := w.Shadow.Virsh(w.ctx(), "domstate", guest); err == nil && strings.HasPrefix(state, "shut off") {
		t.Log("the last crash came after the commit")
		if _, err := w.Shadow.Virsh(w.ctx(), "start", guest); err != nil {
			t.Fatal(err)
		}
	}
	w.standsAlone()
}

// crashOnceBacked kills the shadow server's QEMU as soon as no more than so many of its disks have a backing file.
func (w *world) crashOnceBacked(disks int) {
	w.t.Helper()
	ctx := w.ctx()
	for {
		xml, err := w.Shadow.Virsh(ctx, "dumpxml", guest)
		if err == nil && strings.Contains(xml, "<domain type='qemu' id=") && strings.Count(xml, "<backingStore type=") <= disks {
			break
		}
		select {
		case <-ctx.Done():
			w.t.Fatal("the pulls do not end")
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := w.Shadow.KillGuest(ctx, guest); err != nil {
		w.t.Fatal(err)
	}
}
