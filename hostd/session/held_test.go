package session_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func of(uid string, assignment *umbrav1.Assignment) *umbrav1.Assignment {
	assignment.DrPairUid = uid
	return assignment
}

// hold is what a control plane says whose record is from a backup.
func hold(assignment *umbrav1.Assignment) *umbrav1.Assignment {
	asked := &umbrav1.Assignment{DrPair: assignment.GetDrPair(), DrPairUid: assignment.GetDrPairUid(), Generation: 1, Hold: true}
	if assignment.GetMain() != nil {
		asked.Role = &umbrav1.Assignment_Main{Main: &umbrav1.MainAssignment{}}
	} else {
		asked.Role = &umbrav1.Assignment_Shadow{Shadow: &umbrav1.ShadowAssignment{}}
	}
	return asked
}

// answers waits until the host has said what it holds of all these pairs.
func (s *peerSession) answers(t *testing.T, pairs ...string) map[string]*umbrav1.AssignmentReport {
	t.Helper()
	answers := map[string]*umbrav1.AssignmentReport{}
	s.until(t, func(request *umbrav1.SessionRequest) bool {
		for _, report := range request.GetReports().GetReports() {
			if report.GetHeld() != nil {
				answers[report.GetDrPair()] = report
			}
		}
		return len(answers) == len(pairs)
	})
	return answers
}

func TestAHostHoldsToWhatItHasAndSaysWhatThatIs(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	m, other := of("uid-m", mainOf("m", 9)), of("uid-now", shadowOf("other", 9))
	s.assign(t, complete(m, other))
	h.main.next(t)
	h.outbox.Report(reportOf("m", 9, true))
	s.assign(t, &umbrav1.AssignmentSet{AppliesTo: 1, ResultsIn: 2, Assignments: []*umbrav1.Assignment{
		hold(m), hold(of("uid-unknown", shadowOf("unknown", 1))), hold(of("uid-before", shadowOf("other", 1))),
	}})
	got := h.main.next(t)
	if len(got.set) != 1 || !got.set[0].GetHold() || got.set[0].GetMain().GetMode() != umbrav1.MainMode_MAIN_MODE_REPLICATE {
		t.Fatalf("the main role is assigned %v", got.set)
	}
	answers := s.answers(t, "m", "unknown", "other")
	if answer := answers["m"]; !proto.Equal(answer.GetHeld().GetAssignment(), m) {
		t.Errorf("of m it says %v", answer)
	}
	if answer := answers["unknown"]; answer.GetHeld().GetAssignment() != nil || answer.GetShadow() == nil || answer.GetDrPairUid() != "uid-unknown" {
		t.Errorf("of an unknown pair it says %v", answer)
	}
	if answer := answers["other"]; answer.GetHeld().GetAssignment().GetDrPairUid() != "uid-now" || answer.GetDrPairUid() != "uid-before" {
		t.Errorf("of another pair of that id it says %v", answer)
	}
}

func TestAHostDoesNotGoBackToAnOlderAssignment(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir, options{})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	fence := of("uid", mainOf("m", 9))
	fence.GetMain().Mode = umbrav1.MainMode_MAIN_MODE_FENCE
	s.assign(t, complete(fence))
	h.main.next(t)
	// As it would be had somebody put back an old etcd and said nothing of it.
	s.assign(t, complete(of("uid", mainOf("m", 3))))
	if got := h.main.next(t); got.set[0].GetMain().GetMode() != umbrav1.MainMode_MAIN_MODE_FENCE || !got.set[0].GetHold() {
		t.Fatalf("the main role is assigned %v", got.set)
	}
	h.stop()
	next := start(t, dir, options{})
	if got := next.main.next(t); len(got.set) != 1 || got.set[0].GetMain().GetMode() != umbrav1.MainMode_MAIN_MODE_FENCE {
		t.Fatalf("after a restart the main role is assigned %v", got.set)
	}
}

func TestAPairThatTheControlPlaneHasForgottenIsRemembered(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir, options{})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	released := of("uid-r", mainOf("released", 5))
	released.GetMain().Mode = umbrav1.MainMode_MAIN_MODE_RELEASE
	m := of("uid-m", mainOf("m", 9))
	s.assign(t, complete(m, released))
	h.main.next(t)
	s.assign(t, complete())
	if got := h.main.next(t); len(got.set) != 0 {
		t.Fatalf("the main role is assigned %v", got.set)
	}
	h.stop()
	next := start(t, dir, options{})
	if got := next.main.next(t); len(got.set) != 0 {
		t.Fatalf("after a restart the main role is assigned %v", got.set)
	}
	s = next.dialled(t)
	s.welcome(t)
	s.assign(t, complete(hold(m), hold(released)))
	if got := next.main.next(t); len(got.set) != 1 || got.set[0].GetDrPair() != "m" || !got.set[0].GetHold() {
		t.Fatalf("the main role is assigned %v", got.set)
	}
	if answer := s.answers(t, "released")["released"]; answer.GetHeld().GetAssignment() != nil {
		t.Errorf("of a pair that was released it says %v", answer)
	}
}
