package shadowserver

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func ofPair(uid string, a *umbrav1.Assignment) *umbrav1.Assignment {
	a.DrPairUid = uid
	return a
}

// phaseOf waits until the pair of that uid is in a phase.
func (l *life) phaseOf(uid string, phase umbrav1.ShadowPhase) *umbrav1.ShadowReport {
	l.t.Helper()
	return l.until(phase.String(), func(r *umbrav1.AssignmentReport) bool {
		if r.GetDrPairUid() != uid {
			return false
		}
		// Whatever is told of the new pair, it is never what the earlier one had.
		if uid == "second" && (r.GetShadow().GetRecoveryPointCount() != 0 || r.GetShadow().GetStoppedEpoch() > 1) {
			l.t.Errorf("the new pair is reported as %v", r)
		}
		return r.GetShadow().GetPhase() == phase
	})
}

// withRealReplica lets hostd/replica keep the store of the world.
func (w *world) withRealReplica(t *testing.T) *replica.Replica {
	t.Helper()
	w.replica.close()
	w.replica.gone = true
	j, err := journal.Open(w.dir + "/replica-state")
	if err != nil {
		t.Fatal(err)
	}
	r, err := replica.New(replica.Config{StoreDir: w.storeDir(), Journal: j, Clock: clock.System, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	w.real = r
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, j.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestAPairThatWasMadeAgainFindsNothingOfTheEarlierOne(t *testing.T) {
	restart := map[string]bool{"to a hostd that runs": false, "after a restart": true}
	for name, restarts := range restart {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, w *world) {
				r := w.withRealReplica(t)
				run := ofPair("first", assignment(40, 7, modeRun, attemptOf(1, 1)))
				l := w.start(run)
				l.phaseOf("first", running)
				again := ofPair("second", assignment(1, 1, modeReceive))
				if restarts {
					l.end()
					l = w.start(again)
				} else {
					l.role.Assign([]*umbrav1.Assignment{again})
				}
				defer l.end()
				l.phaseOf("second", receiving)
				wantNothingLeft(t, w)
				if s := r.Status(pair); s.UID != "second" || s.Count != 0 || s.StoppedEpoch != 0 || !s.Accepting {
					t.Errorf("the replica is %+v", s)
				}
			})
		})
	}
}

func TestACommittedServerOfAnEarlierPairIsNotTouched(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.withRealReplica(t)
		l := w.start(ofPair("first", assignment(2, 2, modeRun, attemptOf(1, 0))))
		defer l.end()
		l.phaseOf("first", running)
		l.role.Assign([]*umbrav1.Assignment{ofPair("first", assignment(3, 2, modeCommit, attemptOf(1, 0)))})
		l.phaseOf("first", committed)
		l.role.Assign([]*umbrav1.Assignment{ofPair("second", assignment(1, 1, modeReceive))})
		l.phaseOf("second", receiving)
		wantCommitted(t, w, 1)
	})
}

// Killed anywhere while the earlier pair is cleared away, it is cleared in the end.
func TestKilledAnywhereWhileAnEarlierPairIsClearedNothingOfItIsLeft(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		again := ofPair("second", assignment(1, 5, modeReceive))
		for at := 1; ; at++ {
			if w.replica.store == nil {
				w.replica.gone = false
				w.replica.open()
				w.addPoint(0)
			}
			l := w.start(ofPair("first", assignment(40, 4, modeRun, attemptOf(1, 0))))
			l.phaseOf("first", running)
			w.mu.Lock()
			w.dieAt = w.touches + at
			w.mu.Unlock()
			l.role.Assign([]*umbrav1.Assignment{again})
			survived := l.until("the new pair is received", func(r *umbrav1.AssignmentReport) bool {
				return r.GetDrPairUid() == "second" && r.GetShadow().GetPhase() == receiving
			}) != nil
			l.end()
			w.mu.Lock()
			w.dieAt = 0
			w.mu.Unlock()
			l = w.start(again)
			l.until("the new pair is received", func(r *umbrav1.AssignmentReport) bool {
				return r.GetDrPairUid() == "second" && r.GetShadow().GetPhase() == receiving
			})
			wantNothingLeft(t, w)
			l.role.Assign([]*umbrav1.Assignment{ofPair("second", assignment(2, 5, modeDelete))})
			l.until("deleted", func(r *umbrav1.AssignmentReport) bool { return r.GetShadow().GetPhase() == deleted })
			l.end()
			w.replica.stopped = 0
			if survived {
				return
			}
		}
	})
}
