package reconcile

import (
	"time"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// restored finds what the hosts of a restored pair hold: the shadow host has to have said so, and the main host too if it is
// connected, or comes within the time after which it counts as unreachable. It may rest on the session that a host has with another
// control plane, since the transaction that follows fails unless both sessions still stand.
func (e *Engine) restored(p drpair.Pair, now time.Time) (found []finding, next time.Time, pending bool) {
	main, _ := e.Observed.Host(p.Main.Host)
	shadow, _ := e.Observed.Host(p.Shadow.Host)
	theirs, ok := e.Observed.Shadow(p.ID)
	if !ok || !shadow.Connected || theirs.Host != shadow.ID || theirs.Session != shadow.Session || !settledShadow(theirs) {
		return nil, time.Time{}, false
	}
	event := drpair.HostsHold{OperationID: store.NewOperationID(now), Shadow: heldByShadow(theirs)}
	sessions := []store.Session{{Host: shadow.ID, Number: shadow.Session}, {Host: p.Main.Host}}
	if main.Connected {
		ours, ok := e.Observed.Main(p.ID)
		if !ok || ours.Host != main.ID || ours.Session != main.Session || ours.Held == nil {
			return nil, time.Time{}, false
		}
		held := held(ours.Held)
		event.Main, sessions[1].Number = &held, main.Session
	} else if at := e.goneSince(main).Add(e.UnreachableAfter); now.Before(at) {
		return nil, at, true
	}
	return []finding{{event, sessions}}, time.Time{}, false
}

// settledShadow tells whether the shadow host has said what it holds, and has looked at it by now: before, it knows no points.
func settledShadow(s observed.Shadow) bool {
	looked := s.Report.GetPhase() != umbrav1.ShadowPhase_SHADOW_PHASE_UNSPECIFIED || s.Report.GetFailure() != nil
	return s.Held != nil && (s.Held.GetAssignment() == nil || looked)
}

func heldByShadow(s observed.Shadow) drpair.Held {
	shadow := held(s.Held)
	shadow.StoppedEpoch, shadow.HasPoint = s.Report.GetStoppedEpoch(), s.Report.GetRecoveryPointCount() > 0
	return shadow
}

// held is what a host says that it was assigned last.
func held(said *umbrav1.Held) drpair.Held {
	a := said.GetAssignment()
	if a == nil {
		return drpair.Held{}
	}
	main, shadow := a.GetMain(), a.GetShadow()
	read := drpair.Held{
		UID: a.GetDrPairUid(), Generation: a.GetGeneration(), Epoch: a.GetEpoch(),
		ResyncGeneration:     max(main.GetResyncGeneration(), shadow.GetResyncGeneration()),
		Main:                 drpair.MainMode(enumWord(main.GetMode().String(), "MAIN_MODE_")),
		Shadow:               drpair.ShadowMode(enumWord(shadow.GetMode().String(), "SHADOW_MODE_")),
		DeletePoints:         shadow.GetDeleteRecoveryPoints(),
		DeletePointsOnResync: shadow.GetDeletePointsOnResync(),
		KeepFenced:           main.GetKeepFenced(),
	}
	if attempt := shadow.GetAttempt(); attempt.GetNumber() > 0 && attempt.GetRecoveryPoint() != "" {
		read.Attempt = &drpair.Attempt{Number: attempt.GetNumber(), Point: attempt.GetRecoveryPoint(), Force: attempt.GetForce()}
	}
	return read
}
