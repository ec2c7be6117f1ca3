package flow_test

import (
	"os"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// A crash at any time of a commit leaves a server that starts with all of its data; see docs/faults.md.
func TestCommitLosesNothingWhenTheServerCrashesAsItsDisksAreCopied(t *testing.T) {
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
	for _, moment := range []func(xml string) bool{
		func(xml string) bool { return strings.Contains(xml, "<mirror ") },
		func(xml string) bool { return disksAlone(xml) == 1 },
		func(xml string) bool { return disksAlone(xml) == 2 },
	} {
		if w.crashOnce(answer.GetOperation().GetName(), moment) {
			crashes++
		}
	}
	if crashes == 0 {
		t.Error("the commit had ended before any crash")
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

// disksAlone counts the disks of a running server that are on images which stand alone.
func disksAlone(xml string) int {
	var server libvirtxml.Domain
	if server.Unmarshal(xml) != nil {
		return 0
	}
	count := 0
	for _, d := range server.Devices.Disks {
		if d.Source != nil && d.Source.File != nil && strings.HasSuffix(d.Source.File.File, "-standalone.qcow2") {
			count++
		}
	}
	return count
}

// crashOnce kills the shadow server's QEMU as soon as what libvirt says of the running server shows the moment. false means that the
// operation ended before.
func (w *world) crashOnce(operation string, moment func(xml string) bool) bool {
	w.t.Helper()
	ctx := w.ctx()
	for {
		xml, err := w.Shadow.Virsh(ctx, "dumpxml", guest)
		if err == nil && strings.Contains(xml, "<domain type='qemu' id=") && moment(xml) {
			break
		}
		op, err := w.Failover.GetOperation(ctx, &umbrav1.GetOperationRequest{Name: operation})
		if err != nil {
			w.t.Fatal(err)
		}
		if op.GetOperation().GetEndTime() != nil {
			w.t.Log("the commit had ended before the moment was seen")
			return false
		}
	}
	if err := w.Shadow.KillGuest(ctx, guest); err != nil {
		w.t.Fatal(err)
	}
	return true
}
