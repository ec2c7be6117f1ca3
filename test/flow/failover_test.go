package flow_test

import (
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

func TestFailoverWithTheMainHostDeadThenChangeThenCommitWithDeletion(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	w.protect(nil)
	points := w.waitPoints(5)
	if err := w.Main.Kill(w.ctx()); err != nil {
		t.Fatal(err)
	}
	written := w.announced()

	newest := w.failover("")
	if newest.Last > written+1 {
		t.Errorf("the newest point holds record %d, but only %d were ever announced", newest.Last, written)
	}
	oldest := w.change(points[len(points)-1].GetName())
	if oldest.Last > newest.Last {
		t.Errorf("the oldest point holds record %d, the newest %d", oldest.Last, newest.Last)
	}
	if again := w.change(w.points()[0].GetName()); again.Last != newest.Last {
		t.Errorf("back at the newest point there is record %d, before there was %d", again.Last, newest.Last)
	}

	w.commit(true)
	w.standsAlone()
	pair, err := w.Failover.GetDRPair(w.ctx(), &umbrav1.GetDRPairRequest{Name: pairName})
	if err != nil {
		t.Fatal(err)
	}
	if actions := pair.GetDrPair().GetAllowedActions(); len(actions) != 1 || actions[0] != umbrav1.DRPairAction_DR_PAIR_ACTION_DELETE {
		t.Errorf("a committed pair allows %v", actions)
	}
	if left := w.points(); len(left) != 0 {
		t.Errorf("%d recovery points are left, all were to be deleted", len(left))
	}
	w.logsSayWhatTheyAreAbout()
}

func TestFailoverWithTheMainHostAliveFencesItAndCommitKeepsThePoints(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{DiskBytes: []int64{256 << 20, 64 << 20}}) // two disks: a point is of one moment of both
	w.protect(nil)
	points := w.waitPoints(4)

	old := w.failover(points[2].GetName())
	if written := w.announced(); old.Last > written {
		t.Errorf("an old point holds record %d of %d", old.Last, written)
	}
	if state, err := w.Main.Virsh(w.ctx(), "domstate", guest); err != nil || state != "shut off\n\n" && state != "shut off" {
		t.Errorf("the main server is %q after the failover (error %v), want it shut off", state, err)
	}
	w.commit(false)
	if left := w.points(); len(left) < len(points) {
		t.Errorf("%d recovery points are left of %d, all were to be kept", len(left), len(points))
	}
	w.standsAlone()
	w.logsSayWhatTheyAreAbout()
}
