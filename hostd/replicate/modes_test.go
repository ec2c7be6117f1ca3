package replicate

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
)

func TestAPausedPairKeepsItsCheckpointAndSendsOnlyChangesAfterwards(t *testing.T) {
	r := build(t, 20*mib)
	r.source.write(change{0, 0, 10 * mib, 4})
	r.start()
	r.assign(nil)
	r.nextPoint()
	g := r.assign(mode(umbrav1.MainMode_MAIN_MODE_PAUSE))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_PAUSED, g)
	if checkpoint, _ := r.shadow.newest(); r.source.jobRuns() || !slices.Contains(r.source.state().checkpoints, checkpoint) {
		t.Error("a job runs, or the checkpoint is gone")
	}
	r.source.write(change{0, mib, 512, 6})
	var before int
	r.shadow.locked(func() { before = r.shadow.data })
	r.assign(nil)
	r.nextPoint()
	r.shadow.locked(func() {
		if sent := r.shadow.data - before; sent > 2 {
			t.Errorf("%d clusters were sent", sent)
		}
	})
}

func TestAReleasedServerIsAsItWasBefore(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	g := r.assign(mode(umbrav1.MainMode_MAIN_MODE_RELEASE))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g)
	if len(r.source.state().checkpoints) != 0 || !r.source.state().server.Autostart || r.source.jobRuns() {
		t.Errorf("checkpoints %v, autostart %v", r.source.state().checkpoints, r.source.state().server.Autostart)
	}
	if _, err := os.Stat(filepath.Join(r.cfg.RunDir, testPair)); !os.IsNotExist(err) {
		t.Errorf("the pair's folder: %v", err)
	}
	if _, found, err := journal.Load[record](r.journal, journal.Replicate, testPair); found || err != nil {
		t.Errorf("the record is left: %v %v", found, err)
	}
	r.stop()
	r.start() // and it may be released again
	r.assign(mode(umbrav1.MainMode_MAIN_MODE_RELEASE))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g+1)
}

func TestAfterAHostFailureTheServerIsStartedOnceTheRoleIsConfirmed(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.stop()

	confirmed := make(chan struct{})
	r.cfg.Confirmed = func() bool {
		select {
		case <-confirmed:
			return true
		default:
			return false
		}
	}
	r.cfg.BootID = "boot-2"
	r.source.locked(func() { r.source.server.Power = hypervisor.PowerOff })
	r.start()
	g := r.assign(nil)
	r.until("waiting for the confirmation", func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return a.GetGeneration() == g && m.GetFailure().GetReason() == umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING
	})
	if n := r.source.count("start"); n != 0 {
		t.Fatal("the server was started before the control plane had confirmed the role")
	}
	close(confirmed)
	r.nextPoint()
	if n := r.source.count("start"); n != 1 {
		t.Errorf("the server was started %d times", n)
	}
}

func TestAnAssignmentOfALowerGenerationIsIgnored(t *testing.T) {
	r := build(t, mib)
	r.start()
	old := r.assignment(fenceWith(umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN))
	r.assign(nil)
	r.nextPoint()
	r.replicator.Assign([]*umbrav1.Assignment{old})
	r.nextPoint()
	if r.source.count("shutdown") != 0 {
		t.Error("the old assignment was followed")
	}
}

func TestAPairThatIsLetGoStopsAndGoesOnFromItsCheckpointWhenItReturns(t *testing.T) {
	r := build(t, 20*mib)
	r.source.write(change{0, 0, 10 * mib, 4})
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.replicator.Assign(nil)
	r.replicator.Assign([]*umbrav1.Assignment{r.assignment(nil)})
	var before int
	r.shadow.locked(func() { before = r.shadow.data })
	r.nextPoint()
	r.shadow.locked(func() {
		if r.shadow.data != before {
			t.Errorf("%d clusters were sent of an unchanged disk", r.shadow.data-before)
		}
	})
}

func TestTheShadowsRefusalIsReportedInItsOwnWords(t *testing.T) {
	r := build(t, mib)
	r.shadow.refuse = &umbrav1.Failure{
		Code: int32(codes.FailedPrecondition), Reason: umbrav1.ErrorReason_ERROR_REASON_EPOCH_OVER, Message: "epoch 1 is over",
	}
	r.start()
	r.assign(nil)
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_ERROR, 0)
	f := report.GetFailure()
	if f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_EPOCH_OVER || f.GetSide() != umbrav1.Side_SIDE_SHADOW || f.GetMessage() != "epoch 1 is over" {
		t.Errorf("reported %v", f)
	}
	if r.source.state().jobs != 0 {
		t.Error("a backup job was begun for a stream that was refused")
	}
}

func TestAServerOfAnotherUUIDIsNotTouched(t *testing.T) {
	r := build(t, mib)
	r.source.server.UUID = "00000000-0000-0000-0000-000000000001"
	r.start()
	r.assign(nil)
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_ERROR, 0)
	if report.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_SERVER_MISSING {
		t.Errorf("reported %v", report.GetFailure())
	}
	g := r.assign(fenceWith(umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_FENCED, g)
	g = r.assign(mode(umbrav1.MainMode_MAIN_MODE_RELEASE))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g)
	if len(r.source.state().calls) != 0 {
		t.Errorf("the other server was touched: %v", r.source.state().calls)
	}
}
