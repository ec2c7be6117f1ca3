package replicate

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const mib = 1 << 20

func TestEveryPointEqualsTheDisksAtItsMoment(t *testing.T) {
	r := build(t, 9*mib+5*512, 3*mib) // the end of the first disk is a partial cluster
	r.source.write(change{0, 0, 2 * mib, 7}, change{0, 9 * mib, 5 * 512, 8}, change{1, mib, mib, 9})
	r.start()
	g := r.assign(nil)
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_INITIAL_SYNC, g)
	r.nextPoint()
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, g)

	r.source.write(change{0, 100 * 512, 3 * 512, 1}, change{0, 9 * mib, 512, 2}, change{0, mib, mib, 0}, change{1, 0, 512, 3})
	var before int
	r.shadow.locked(func() { before = r.shadow.data })
	r.nextPoint()
	r.shadow.locked(func() {
		if sent := r.shadow.data - before; sent == 0 || sent > 8 {
			t.Errorf("an increment of a few clusters sent %d", sent)
		}
	})
	r.showsTraffic()
	if n := r.source.count("autostart false"); n != 1 {
		t.Errorf("the server was taken off autostart %d times", n)
	}
}

func TestABackupJobHasEndedBeforeItsPointIsAskedFor(t *testing.T) {
	r := build(t, mib)
	r.shadow.onPoint = func(checkpoint string) {
		// The request may have waited long behind data, and scratch files fill while a job runs.
		if r.source.jobRuns() {
			t.Errorf("the job of checkpoint %s runs on while its point is stored", checkpoint)
		}
	}
	r.start()
	r.assign(nil)
	for range 3 {
		r.nextPoint()
	}
}

func TestOldCheckpointsGoAndForeignOnesStay(t *testing.T) {
	r := build(t, mib)
	foreign := []string{"nightly", "umbra-p1x-1-5", "umbra-p1-1-x", "umbra-p2-1-5"}
	r.source.checkpoints = slices.Clone(foreign)
	r.shadow.onPoint = func(checkpoint string) {
		// The one that the shadow's older state is of, and the one that is about to be confirmed, must be there.
		r.source.locked(func() {
			if !slices.Contains(r.source.checkpoints, checkpoint) {
				t.Errorf("checkpoint %s was deleted before its point was confirmed", checkpoint)
			}
		})
	}
	r.start()
	r.assign(nil)
	for range 6 {
		r.nextPoint()
	}
	for range 4 {
		select {
		case <-r.source.deleted:
		case <-time.After(patience):
			t.Fatal("old checkpoints are not deleted")
		}
	}
	r.stop()
	checkpoint, _ := r.shadow.newest()
	own := slices.DeleteFunc(slices.Clone(r.source.state().checkpoints), func(n string) bool { return slices.Contains(foreign, n) })
	// The end of the test may have cut off the deletion of one and the job of another.
	if len(own) > 3 {
		t.Errorf("checkpoints %v are left over; the newest point is of %s", own, checkpoint)
	}
	for _, name := range append(foreign, checkpoint) {
		if !slices.Contains(r.source.state().checkpoints, name) {
			t.Errorf("checkpoint %s is gone", name)
		}
	}
}

func TestALostBitmapIsFollowedByAComparisonThatSendsOnlyWhatDiffers(t *testing.T) {
	r := build(t, 40*mib)
	r.source.write(change{0, 0, 30 * mib, 5})
	r.start()
	r.assign(nil)
	r.nextPoint()
	var before int
	r.shadow.locked(func() { before = r.shadow.data })
	r.source.write(change{0, 12 * mib, 64 << 10, 6}, change{0, 20 * mib, mib, 0})
	r.source.locked(func() { r.source.lost = true })
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RESYNCING, 0)
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, 0)
	if report.GetFailure() != nil {
		t.Errorf("a lost bitmap was reported as a failure: %v", report.GetFailure())
	}
	r.nextPoint()
	r.shadow.locked(func() {
		if sent := r.shadow.data - before; sent > 4 {
			t.Errorf("%d clusters were sent where 1 differs", sent)
		}
		if r.shadow.asked < 40*mib/clusterBytes {
			t.Errorf("only %d checksums were asked for", r.shadow.asked)
		}
	})
}

func TestRestartReplicationComparesEverythingUnderTheNewGeneration(t *testing.T) {
	r := build(t, 4*mib)
	r.source.write(change{0, 0, mib, 5})
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, 0)
	// What the shadow holds has silently become wrong.
	r.shadow.locked(func() { r.shadow.disks["vda"].durable[5000]++ })
	g := r.assign(func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) { a.Epoch, m.ResyncGeneration = 2, 1 })
	seen := false
	r.until("REPLICATING after RESYNCING", func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		if a.GetGeneration() < g {
			return false
		}
		seen = seen || m.GetPhase() == umbrav1.MainPhase_MAIN_PHASE_RESYNCING
		if m.GetPhase() == umbrav1.MainPhase_MAIN_PHASE_REPLICATING && !seen {
			t.Fatal("REPLICATING was reported before the comparison")
		}
		return m.GetPhase() == umbrav1.MainPhase_MAIN_PHASE_REPLICATING && m.GetResyncGeneration() == 1
	})
	r.nextPoint()
}

func TestADiskThatAppearsIsReplicatedWithTheOthers(t *testing.T) {
	r := build(t, 2*mib)
	r.source.write(change{0, 0, mib, 5})
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.source.addDisk(3 * mib)
	r.source.write(change{1, mib, mib, 6})
	r.until("a new disk's point", func(*umbrav1.AssignmentReport, *umbrav1.MainReport) bool {
		_, content := r.shadow.newest()
		return len(content) == 2
	})
	r.nextPoint()
}

func TestADiskWithoutChangeTrackingIsComparedInEveryCycle(t *testing.T) {
	r := build(t, 2*mib, 2*mib)
	r.source.disks[1].TracksChanges = false
	r.source.write(change{0, 0, mib, 5}, change{1, 0, 2 * mib, 6})
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.source.write(change{0, 0, 512, 7}, change{1, mib, 512, 8})
	r.nextPoint()
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, 0)
}

func TestAPolicyThatChangesHoldsForTheCycleThatIsWaitedFor(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(func(_ *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		m.Policy.Interval = durationpb.New(24 * time.Hour)
	})
	r.nextPoint()
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, 0)
	g := r.assign(nil)
	r.nextPoint()
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_REPLICATING, g)
	if r.source.state().jobs < 2 {
		t.Error("no second job")
	}
}
