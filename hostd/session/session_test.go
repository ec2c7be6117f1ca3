package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func complete(assignments ...*umbrav1.Assignment) *umbrav1.AssignmentSet {
	return &umbrav1.AssignmentSet{Complete: true, ResultsIn: 1, Assignments: assignments}
}

func TestChangesFollowTheCompleteSet(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	if kept := h.main.next(t); kept.live || len(kept.set) != 0 {
		t.Fatalf("a new host is assigned %v, live %v", kept.set, kept.live)
	}
	h.shadow.next(t)
	s := h.dialled(t)
	if s.hello.GetHost() != "a" || s.hello.GetInstance() == "" || s.hello.GetProtocolVersion() != 1 {
		t.Fatalf("the hello is %v", s.hello)
	}
	s.welcome(t)
	s.assign(t, complete(mainOf("m2", 1), shadowOf("s", 1), mainOf("m1", 1)))
	if mains := h.main.next(t); !mains.live || !slices.Equal(names(mains.set), []string{"m1", "m2"}) {
		t.Fatalf("the main role is assigned %v, live %v", mains.set, mains.live)
	}
	if shadows := h.shadow.next(t); !slices.Equal(names(shadows.set), []string{"s"}) {
		t.Fatalf("the shadow role is assigned %v", shadows.set)
	}
	s.assign(t, &umbrav1.AssignmentSet{AppliesTo: 1, ResultsIn: 2, Assignments: []*umbrav1.Assignment{mainOf("m1", 2)}, RemovedDrPairs: []string{"m2"}})
	if mains := h.main.next(t); !slices.Equal(names(mains.set), []string{"m1"}) || mains.set[0].GetGeneration() != 2 {
		t.Fatalf("after the change the main role is assigned %v", mains.set)
	}
}

func TestABrokenChainMakesTheHostDialAgainAndIsNotTaken(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	s.assign(t, complete(mainOf("m", 1)))
	h.main.next(t)
	s.assign(t, &umbrav1.AssignmentSet{AppliesTo: 2, ResultsIn: 3, RemovedDrPairs: []string{"m"}})
	again := h.dialled(t)
	again.welcome(t)
	// The number fits what was held before, but no complete set has come in this session.
	again.assign(t, &umbrav1.AssignmentSet{AppliesTo: 1, ResultsIn: 2, RemovedDrPairs: []string{"m"}})
	third := h.dialled(t)
	third.welcome(t)
	third.assign(t, complete(mainOf("m", 1), mainOf("n", 1)))
	if mains := h.main.next(t); !slices.Equal(names(mains.set), []string{"m", "n"}) {
		t.Fatalf("the main role was assigned %v by a broken chain", mains.set)
	}
	if s.hello.GetInstance() != third.hello.GetInstance() {
		t.Error("the instance is another one in the same life")
	}
}

func TestAssignmentsOutliveTheProcessAndAreNotLiveThen(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir, options{})
	s := h.dialled(t)
	s.welcome(t)
	h.main.next(t)
	s.assign(t, complete(mainOf("m", 7), shadowOf("s", 3), shadowOf("gone", 3)))
	h.main.next(t)
	s.assign(t, &umbrav1.AssignmentSet{AppliesTo: 1, ResultsIn: 2, RemovedDrPairs: []string{"gone"}})
	h.main.next(t)
	h.stop()

	h = start(t, dir, options{})
	mains, shadows := h.main.next(t), h.shadow.next(t)
	if mains.live || shadows.live {
		t.Error("kept assignments are called live")
	}
	if len(mains.set) != 1 || mains.set[0].GetGeneration() != 7 || !slices.Equal(names(shadows.set), []string{"s"}) {
		t.Fatalf("kept are %v and %v", mains.set, shadows.set)
	}
	s = h.dialled(t)
	s.welcome(t)
	s.assign(t, complete(mainOf("m", 7)))
	if mains := h.main.next(t); !mains.live || len(mains.set) != 1 {
		t.Fatalf("the same set from the control plane is %v, live %v", mains.set, mains.live)
	}
	if shadows := h.shadow.next(t); len(shadows.set) != 0 {
		t.Fatalf("a pair that is not in the complete set is still assigned: %v", shadows.set)
	}
}

// collect receives reports until every key has its generation, and returns how many came of each.
func collect(t *testing.T, s *peerSession, want map[string]uint64) map[string]int {
	t.Helper()
	count, latest := map[string]int{}, map[string]uint64{}
	s.until(t, func(request *umbrav1.SessionRequest) bool {
		for _, report := range request.GetReports().GetReports() {
			key := fmt.Sprint(report.GetDrPair(), report.GetMain() != nil)
			count[key]++
			latest[key] = report.GetGeneration()
		}
		for key, generation := range want {
			if latest[key] != generation {
				return false
			}
		}
		return true
	})
	return count
}

func TestReportsCoalesceAndANewSessionGetsAllOfThem(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	h.main.next(t)
	h.shadow.next(t)
	s := h.dialled(t)
	s.welcome(t)
	s.assign(t, complete(mainOf("m", 1), shadowOf("s", 1)))
	h.main.next(t)
	h.shadow.next(t)
	for generation := range uint64(1000) {
		h.outbox.Report(reportOf("m", generation+1, true))
		h.outbox.Report(reportOf("s", generation+1, false))
		h.outbox.Report(reportOf("m", generation+1, false)) // not this host's role
	}
	want := map[string]uint64{"mtrue": 1000, "sfalse": 1000}
	count := collect(t, s, want)
	if count["mtrue"] > 100 || count["sfalse"] > 100 || count["mfalse"] > 0 {
		t.Errorf("1000 reports at once were sent as %v", count)
	}
	s.end <- status.Error(codes.Unavailable, "enough")
	again := h.dialled(t)
	again.welcome(t)
	if count := collect(t, again, want); count["mtrue"] != 1 || count["sfalse"] != 1 {
		t.Errorf("the new session was sent %v", count)
	}
	again.assign(t, complete(shadowOf("s", 1)))
	for len(h.main.next(t).set) > 0 {
	}
	again.end <- status.Error(codes.Unavailable, "enough")
	third := h.dialled(t)
	third.welcome(t)
	if count := collect(t, third, map[string]uint64{"sfalse": 1000}); count["mtrue"] > 0 {
		t.Error("the report of a pair that is not assigned any more was sent again")
	}
}

func TestQuestionsAreAnsweredWhileAnotherHangs(t *testing.T) {
	release := make(chan struct{})
	h := start(t, t.TempDir(), options{answerer: answerer{points: func(ctx context.Context, pair string) ([]*umbrav1.RecoveryPoint, error) {
		switch pair {
		case "hangs":
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil, fmt.Errorf("reading the index: %w", context.DeadlineExceeded)
		case "missing":
			return nil, status.Error(codes.NotFound, "no such pair")
		case "broken":
			return nil, errors.New("disk error")
		}
		if pair == "endless" {
			return slices.Repeat([]*umbrav1.RecoveryPoint{{Name: strings.Repeat("x", 1<<10)}}, 5<<10), nil
		}
		return []*umbrav1.RecoveryPoint{{Name: pair}}, nil
	}}})
	s := h.dialled(t)
	s.welcome(t)
	ask := func(id uint64, pair string) {
		s.send(t, &umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Query{Query: &umbrav1.HostQuery{
			Id: id, DrPair: pair, Question: &umbrav1.HostQuery_RecoveryPoints{RecoveryPoints: &umbrav1.RecoveryPointsQuery{}},
		}}})
	}
	answer := func(id uint64) *umbrav1.QueryAnswer {
		var found *umbrav1.QueryAnswer
		s.until(t, func(request *umbrav1.SessionRequest) bool {
			found = request.GetQueryAnswer()
			return found.GetId() == id
		})
		return found
	}
	ask(1, "hangs")
	ask(2, "p")
	if got := answer(2); got.GetCode() != 0 || got.GetRecoveryPoints().GetRecoveryPoints()[0].GetName() != "p" {
		t.Errorf("the answer is %v", got)
	}
	ask(3, "missing")
	if got := answer(3); got.GetCode() != int32(codes.NotFound) || got.GetErrorMessage() != "no such pair" {
		t.Errorf("the answer is %v", got)
	}
	ask(4, "broken")
	if got := answer(4); got.GetCode() != int32(codes.Unknown) {
		t.Errorf("the answer is %v", got)
	}
	ask(6, "endless") // to send that would end the session
	if got := answer(6); got.GetCode() != int32(codes.ResourceExhausted) || got.GetRecoveryPoints() != nil {
		t.Errorf("the answer is %.300v", got)
	}
	close(release)
	if got := answer(1); got.GetCode() != int32(codes.DeadlineExceeded) {
		t.Errorf("the answer is %v", got)
	}
	s.send(t, &umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Query{Query: &umbrav1.HostQuery{
		Id: 5, Question: &umbrav1.HostQuery_Inventory{Inventory: &umbrav1.InventoryQuery{}},
	}}})
	if got := answer(5); got.GetInventory().GetName() != "hosts/a" {
		t.Errorf("the answer is %v", got)
	}
}

// wrongClock shows a time that is not everybody's.
type wrongClock struct{ clock.Clock }

func (w wrongClock) Now() time.Time { return w.Clock.Now().Add(-time.Hour) }

func TestAnInventorySaysWhatTheHostsClockSays(t *testing.T) {
	h := start(t, t.TempDir(), options{clock: wrongClock{clock.System}})
	s := h.dialled(t)
	s.welcome(t)
	s.until(t, func(request *umbrav1.SessionRequest) bool {
		if request.GetInventory() == nil {
			return false
		}
		said := request.GetInventory().GetClockTime().AsTime()
		if now := time.Now(); said.After(now.Add(-time.Hour)) || said.Before(now.Add(-time.Hour-patience)) {
			t.Errorf("at %v a clock that is an hour behind says %v", now, said)
		}
		return true
	})
}

func TestAHypervisorThatHangsDelaysNeitherReportsNorHeartbeats(t *testing.T) {
	h := start(t, t.TempDir(), options{inventory: func(ctx context.Context) (*umbrav1.Host, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	s.assign(t, complete(mainOf("m", 1)))
	h.main.next(t)
	h.outbox.Report(reportOf("m", 1, true))
	collect(t, s, map[string]uint64{"mtrue": 1})
}

// counting is the system's clock, and tells how long the session waits between dials.
type counting struct {
	clock.Clock
	waits chan time.Duration
}

func (c counting) Wait(ctx context.Context, d time.Duration) error {
	if d < 20*time.Second { // not the patience for a welcome, nor the beat of inventories
		select {
		case c.waits <- d:
		default:
		}
		d = min(d, time.Millisecond)
	}
	return c.Clock.Wait(ctx, d)
}

func TestSessionsThatAreWelcomedAndEndAtOnceAreDialledLessAndLessOften(t *testing.T) {
	waits := make(chan time.Duration, 1000)
	h := start(t, t.TempDir(), options{clock: counting{clock.System, waits}})
	const dials = 15
	for range dials {
		s := h.dialled(t)
		s.welcome(t)
		s.end <- status.Error(codes.Aborted, "another one has your name")
	}
	h.dialled(t)
	longest := time.Duration(0)
	for len(waits) > 0 {
		longest = max(longest, <-waits)
	}
	if longest < 2*time.Second {
		t.Errorf("after %d sessions that ended at once the longest pause was %v", dials, longest)
	}
}

func TestTheHostDialsAgainWhateverTheControlPlaneSaysInsteadOfAWelcome(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	h.dialled(t).assign(t, complete(mainOf("m", 1)))
	s := h.dialled(t)
	s.end <- status.Error(codes.PermissionDenied, "not you")
	h.dialled(t).welcome(t)
	if kept := h.main.next(t); len(kept.set) != 0 {
		t.Errorf("assigned %v without a welcome", kept.set)
	}
}

// What another host has said may be in every report. Together they are more than the control plane takes as one message.
func TestManyLongReportsAreSentInParts(t *testing.T) {
	const pairs = 64
	h := start(t, t.TempDir(), options{})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	var mains []*umbrav1.Assignment
	for i := range pairs {
		mains = append(mains, mainOf(fmt.Sprint("p-", i), 1))
	}
	s.assign(t, complete(mains...))
	h.main.next(t)
	for i := range pairs {
		report := reportOf(fmt.Sprint("p-", i), 1, true)
		report.GetMain().Failure = &umbrav1.Failure{PossibleCauses: slices.Repeat([]string{strings.Repeat("x", 4<<10)}, 32)}
		h.outbox.Report(report)
	}
	seen := map[string]bool{}
	s.until(t, func(request *umbrav1.SessionRequest) bool {
		if size := proto.Size(request); size > 2<<20 {
			t.Errorf("a message has %d bytes", size)
		}
		for _, report := range request.GetReports().GetReports() {
			seen[report.GetDrPair()] = true
		}
		return len(seen) == pairs
	})
}
