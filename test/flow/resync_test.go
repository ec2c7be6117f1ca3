package flow_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

func TestALostBitmapIsMendedByComparisonAndThePointsStayUsable(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	w.protect(nil)
	before := w.waitPoints(3)

	w.killGuest()
	if _, err := w.Main.StartGuest(w.ctx(), guest, longest); err != nil {
		t.Fatal(err)
	}
	restarted := time.Now()
	_, err := w.WaitPair(w.ctx(), pairID, func(p *umbrav1.DRPair) bool {
		return p.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING &&
			p.GetReplication().GetNewestRecoveryPointTime().AsTime().After(restarted)
	})
	if err != nil {
		t.Fatal(err)
	}
	after := w.points()
	if after[len(after)-1].GetName() != before[len(before)-1].GetName() {
		t.Error("the oldest point is gone")
	}
	written := w.announced()
	if found := w.failover(after[0].GetName()); found.Last > written+1 {
		t.Errorf("record %d found, %d announced", found.Last, written)
	}
	w.change(before[0].GetName())
}

// killGuest ends the main server's QEMU as a crash would, so that its bitmaps are lost.
func (w *world) killGuest() {
	w.t.Helper()
	out, err := w.Main.Command(w.ctx(), "cat", "/run/libvirt/qemu/"+guest+".pid").Output()
	if err != nil {
		w.t.Fatal(err)
	}
	pid := strings.TrimSpace(string(out))
	if _, err := strconv.Atoi(pid); err != nil {
		w.t.Fatalf("the process number is %q", out)
	}
	if out, err := w.Main.Command(w.ctx(), "kill", "-9", pid).CombinedOutput(); err != nil {
		w.t.Fatalf("killing QEMU: %v\n%s", err, out)
	}
	for {
		state, err := w.Main.Virsh(w.ctx(), "domstate", guest)
		if err == nil && strings.HasPrefix(state, "shut off") {
			return
		}
		select {
		case <-w.t.Context().Done():
			w.t.Fatal("the main server does not stop")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestHostdAndControlPlaneCanBeKilledAtAnyTimeAndReplicationGoesOn(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	w.protect(nil)
	for _, victim := range []interface {
		Kill(context.Context) error
		Start(context.Context) error
	}{w.Main.Hostd, w.Shadow.Hostd, w.ControlPlane} {
		if err := victim.Kill(w.ctx()); err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(w.ctx()); err != nil {
			t.Fatal(err)
		}
		again := time.Now()
		_, err := w.WaitPair(w.ctx(), pairID, func(p *umbrav1.DRPair) bool {
			return p.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING &&
				p.GetReplication().GetNewestRecoveryPointTime().AsTime().After(again)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.failover("")
}

func TestNoSpaceOnTheShadowPausesReplicationAndKeepsThePoints(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{RecordsPerSecond: 20, RateBytes: 4 << 20, AnnounceEvery: 20})
	w.protect(nil)
	w.waitPoints(3)
	w.updatePolicy(func(p *umbrav1.DRPair) {
		p.Policy.Retention.StoreBytesMax = p.GetReplication().GetStoreBytes() + 8<<20
	})
	full := w.state(umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED)
	if failure := full.GetFailure(); failure.GetReason() != umbrav1.ErrorReason_ERROR_REASON_NO_SPACE || failure.GetCode() != 8 {
		t.Errorf("the failure is %v", failure)
	}
	kept := w.points()
	if len(kept) == 0 {
		t.Fatal("no points are left")
	}
	w.updatePolicy(func(p *umbrav1.DRPair) { p.Policy.Retention.StoreBytesMax = 0 })
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING)
	w.failover(kept[len(kept)-1].GetName())
}

func TestDeletingAPairLeavesNothingOnItsHosts(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	w.protect(nil)
	answer, err := w.Protection.DeleteDRPair(w.ctx(), &umbrav1.DeleteDRPairRequest{Name: pairName})
	w.end(answer.GetOperation(), err, succeeded)
	if checkpoints, err := w.Main.Virsh(w.ctx(), "checkpoint-list", guest, "--name"); err != nil || strings.TrimSpace(checkpoints) != "" {
		t.Errorf("checkpoints are left: %q, error %v", checkpoints, err)
	}
	if job, err := w.Main.Virsh(w.ctx(), "domjobinfo", guest); err != nil || !strings.Contains(job, "None") {
		t.Errorf("a job is left: %q, error %v", job, err)
	}
	for _, dir := range []string{
		filepath.Join(w.Shadow.Dir, "umbra", "store", pairID), filepath.Join(w.Shadow.Dir, "umbra", "servers", pairID),
		filepath.Join(w.Main.Dir, "run", "umbra", pairID),
	} {
		if out, err := exec.Command("find", dir).Output(); err == nil {
			t.Errorf("left behind:\n%s", out)
		}
	}
}

// updatePolicy changes the pair's policy by what the pair is now.
func (w *world) updatePolicy(change func(*umbrav1.DRPair)) {
	w.t.Helper()
	pair, err := w.Failover.GetDRPair(w.ctx(), &umbrav1.GetDRPairRequest{Name: pairName})
	if err != nil {
		w.t.Fatal(err)
	}
	change(pair.GetDrPair())
	_, err = w.Protection.UpdateDRPair(w.ctx(), &umbrav1.UpdateDRPairRequest{
		DrPair:     &umbrav1.DRPair{Name: pairName, Policy: pair.GetDrPair().GetPolicy()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"policy"}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}
