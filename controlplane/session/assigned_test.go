package session_test

import (
	"slices"
	"testing"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestAPairThatWasRemovedAndMadeAgainIsForgottenFirst(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("p", "a", "b"))
	p.records.change("p", func(pair *drpair.Pair) { pair.Epoch = 7 })
	h := p.connect(t, "a")
	h.set(t)
	again := pairOf("p", "a", "b")
	again.Pair.UID = "another"
	p.records.put(again)
	if set := h.set(t); !slices.Equal(set.GetRemovedDrPairs(), []string{"p"}) || len(set.GetAssignments()) != 0 {
		t.Fatalf("the host is told %v", set)
	}
	if set := h.set(t); len(set.GetAssignments()) != 1 || set.GetAssignments()[0].GetGeneration() != 1 {
		t.Fatalf("then the host is told %v", set)
	}
}

func TestWhatChangesNothingForAHostIsNotSent(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("p", "a", "b"))
	p.records.put(pairOf("elsewhere", "c", "d"))
	h := p.connect(t, "a")
	if set := h.set(t); len(set.GetAssignments()) != 1 {
		t.Fatalf("the host is told %v", set)
	}
	p.records.change("p", func(pair *drpair.Pair) { pair.HasPoint = true })
	p.records.change("elsewhere", func(pair *drpair.Pair) { pair.Epoch++ })
	p.records.put(pairOf("new", "b", "a"))
	set := h.set(t)
	if len(set.GetAssignments()) != 1 || set.GetAssignments()[0].GetDrPair() != "new" {
		t.Fatalf("the host is told %v", set)
	}
}

func TestAPairIsTakenFromTheHostItHasLeft(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("p", "a", "b"))
	old, kept := p.connect(t, "a"), p.connect(t, "b")
	old.set(t)
	kept.set(t)
	moved := pairOf("p", "c", "b")
	moved.Pair.UID = "another"
	p.records.remove("p")
	p.records.put(moved)
	if set := old.set(t); !slices.Equal(set.GetRemovedDrPairs(), []string{"p"}) {
		t.Errorf("the old main host is told %v", set)
	}
	if set := p.connect(t, "c").set(t); len(set.GetAssignments()) != 1 {
		t.Errorf("the new main host is told %v", set)
	}
}

func TestAssignmentsSayWhatTheRecordSays(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("p", "a", "b"))
	p.records.change("p", func(pair *drpair.Pair) {
		pair.State, pair.Epoch, pair.Stopped, pair.ResyncGeneration = drpair.FailedOver, 5, true, 2
		pair.Fence = drpair.Fence{State: drpair.FenceConfirmed}
		pair.Active = &drpair.Attempt{Number: 3, Point: "rp", Force: true}
	})
	main := p.connect(t, "a").set(t).GetAssignments()[0]
	if got := main.GetMain(); main.GetEpoch() != 5 || main.GetDrPairUid() != "uid-p" || got.GetMode() != umbrav1.MainMode_MAIN_MODE_FENCE || got.GetServerUuid() != "u-p" ||
		got.GetShadowHost() != "b" || got.GetResyncGeneration() != 2 || got.GetPolicy().GetOnMainReturn() != umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN {
		t.Errorf("the main host is told %v", main)
	}
	shadow := p.connect(t, "b").set(t).GetAssignments()[0].GetShadow()
	if shadow.GetMode() != umbrav1.ShadowMode_SHADOW_MODE_RUN || shadow.GetMainHost() != "a" || shadow.GetServer() != "p" ||
		shadow.GetAttempt().GetNumber() != 3 || shadow.GetAttempt().GetRecoveryPoint() != "rp" || !shadow.GetAttempt().GetForce() {
		t.Errorf("the shadow host is told %v", shadow)
	}
}
