package replicate

import (
	"slices"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
)

// ofPair makes an assignment one of the pair of that uid, whose first generation it is.
func ofPair(uid string, change func(*umbrav1.Assignment, *umbrav1.MainAssignment)) func(*umbrav1.Assignment, *umbrav1.MainAssignment) {
	return func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		if change != nil {
			change(a, m)
		}
		a.DrPairUid = uid
	}
}

func (r *rig) untilPair(uid string, phase umbrav1.MainPhase) *umbrav1.MainReport {
	r.t.Helper()
	return r.until(phase.String(), func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return a.GetDrPairUid() == uid && m.GetPhase() == phase
	})
}

func TestAPairThatWasMadeAgainStartsFromTheBeginningWhateverTheEarlierOnesGeneration(t *testing.T) {
	for name, meanwhile := range map[string]func(*rig){
		"while the host is connected": func(*rig) {},
		"while hostd is away":         func(r *rig) { r.stop(); r.start() },
	} {
		t.Run(name, func(t *testing.T) {
			r := build(t, mib)
			r.start()
			r.generation = 40
			r.assign(ofPair("first", nil))
			old := r.nextPoint()
			meanwhile(r)
			r.source.locked(func() {
				r.source.onBegin = func(string) {
					r.shadow.locked(func() {
						if r.shadow.pairUID == "second" && slices.Contains(r.source.checkpoints, old) {
							t.Error("a job was begun while a checkpoint of the earlier pair was there")
						}
					})
				}
			})
			r.generation = 0
			r.assign(ofPair("second", nil))
			r.untilPair("second", umbrav1.MainPhase_MAIN_PHASE_REPLICATING)
			r.shadow.locked(func() {
				if r.shadow.pairUID != "second" {
					t.Errorf("the stream is of the pair of uid %q", r.shadow.pairUID)
				}
			})
			rec, _, err := journal.Load[record](r.journal, journal.Replicate, testPair)
			if err != nil || rec.UID != "second" || !rec.AutostartWas {
				t.Errorf("the record is %+v, %v", rec, err)
			}
		})
	}
}

func TestAServerThatAnEarlierPairHasShutDownIsNotStartedByTheNextOfThatId(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(ofPair("first", nil))
	r.nextPoint()
	r.assign(ofPair("first", fenceWith(umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN)))
	r.untilPair("first", umbrav1.MainPhase_MAIN_PHASE_FENCED)
	r.stop()
	r.cfg.BootID = "boot-2" // not even by standing in for autostart
	r.start()
	r.generation = 0
	r.assign(ofPair("second", nil))
	r.until("not running", func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return a.GetDrPairUid() == "second" && m.GetFailure().GetReason() == umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING
	})
	if n := r.source.count("start"); n != 0 {
		t.Errorf("the server was started %d times", n)
	}
	g := r.assign(ofPair("second", mode(umbrav1.MainMode_MAIN_MODE_RELEASE)))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g)
	if s := r.source.state(); !s.server.Autostart || s.server.Power != hypervisor.PowerOff {
		t.Errorf("released: %+v", s.server)
	}
}

func TestTheServerOfAnEarlierPairIsGivenBackWhenTheNextOfThatIdHasAnother(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(ofPair("first", nil))
	r.nextPoint()
	another := func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		m.Server, m.ServerUuid = "other", "00000000-0000-0000-0000-000000000002"
	}
	r.generation = 0
	r.assign(ofPair("second", another))
	r.until("the other server is missing", func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return a.GetDrPairUid() == "second" && m.GetFailure().GetReason() == umbrav1.ErrorReason_ERROR_REASON_SERVER_MISSING
	})
	if s := r.source.state(); len(s.checkpoints) != 0 || !s.server.Autostart || r.source.jobRuns() {
		t.Errorf("left behind: checkpoints %v, autostart %v", s.checkpoints, s.server.Autostart)
	}
}
