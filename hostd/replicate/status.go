package replicate

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	// movingBeat is how often progress is reported while something moves.
	movingBeat = time.Second
	// slowBeats is after how many moving beats a report is made although nothing changed.
	slowBeats = 10
)

// view is what is reported, except for progress.
type view struct {
	phase        umbrav1.MainPhase
	failure      *umbrav1.Failure
	power        hypervisor.PowerState
	fenceMessage string
}

// status makes the reports of one pair.
type status struct {
	clock  clock.Clock
	report func(*umbrav1.AssignmentReport)

	mu         sync.Mutex
	assignment *umbrav1.Assignment // that the view is of; nil before the first
	next       *umbrav1.Assignment // other work that was taken up and has not begun; nil when there is none
	view       view
	progress   *progress // of the job that runs, or nil
	meter      meter
}

// announce reports at once that other work was taken up, whatever the worker still has to end before it begins. What it
// observes until then is of the earlier work and is not reported: it must not pass for an observation of this one, and an
// older report would take the place of this one where only the latest counts.
func (s *status) announce(a *umbrav1.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.assignment == a {
		return // the worker was quicker
	}
	s.next = a
	s.send()
}

// takeUp makes the reports speak of that assignment, under which work goes on.
func (s *status) takeUp(a *umbrav1.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	held := &s.assignment
	if s.next != nil {
		held = &s.next
	}
	changed := (*held).GetGeneration() != a.GetGeneration() || (*held).GetDrPairUid() != a.GetDrPairUid()
	*held = a
	if changed {
		s.send()
	}
}

// begin makes the reports speak of that assignment and of nothing that was observed for an earlier one, except for the
// server's power, and reports that it was taken up.
func (s *status) begin(a *umbrav1.Assignment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assignment = a
	if s.next != nil && sameWork(a, s.next) {
		s.assignment, s.next = s.next, nil // which may be a later one of the same work
	}
	s.view = view{power: s.view.power}
	s.send()
}

// change changes the view, and reports it if that made a difference.
func (s *status) change(f func(*view)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.view
	f(&s.view)
	if before != s.view && s.next == nil && s.view.phase != umbrav1.MainPhase_MAIN_PHASE_UNSPECIFIED {
		s.send()
	}
}

// watch makes the reports carry the progress of a job; nil ends that.
func (s *status) watch(p *progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.progress, s.meter = p, meter{}
	if p != nil {
		s.meter.read(s.clock.Now(), 0)
	}
}

// beat reports at its pace until ctx ends.
func (s *status) beat(ctx context.Context) {
	ticker := s.clock.NewTicker(movingBeat)
	defer ticker.Stop()
	var moved int64
	for beats := 1; ; beats++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		moved = s.beatOnce(moved, beats%slowBeats == 0)
	}
}

func (s *status) beatOnce(moved int64, slow bool) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.progress != nil {
		if now := s.progress.moved.Load(); now != moved {
			moved, slow = now, true
		}
	}
	if slow {
		s.send()
	}
	return moved
}

// send is called with the lock held, so that reports leave in the order of what they tell. Report does not block.
func (s *status) send() {
	now := s.clock.Now()
	a, main := s.assignment, &umbrav1.MainReport{ServerState: powerMessage(s.view.power)}
	if s.next != nil {
		a = s.next
	} else {
		main.Phase, main.Failure, main.FenceMessage = s.view.phase, s.view.failure, s.view.fenceMessage
		if s.progress != nil {
			main.Progress = s.progress.message(s.meter.read(now, s.progress.done.Load()))
		}
	}
	main.ResyncGeneration = a.GetMain().GetResyncGeneration()
	s.report(&umbrav1.AssignmentReport{
		DrPair:      a.GetDrPair(),
		DrPairUid:   a.GetDrPairUid(),
		Generation:  a.GetGeneration(),
		Epoch:       a.GetEpoch(),
		ObserveTime: timestamppb.New(now),
		Role:        &umbrav1.AssignmentReport_Main{Main: main},
	})
}

func powerMessage(p hypervisor.PowerState) umbrav1.PowerState {
	switch p {
	case hypervisor.PowerRunning:
		return umbrav1.PowerState_POWER_STATE_RUNNING
	case hypervisor.PowerPaused:
		return umbrav1.PowerState_POWER_STATE_PAUSED
	case hypervisor.PowerOff:
		return umbrav1.PowerState_POWER_STATE_OFF
	case hypervisor.PowerAbsent:
		return umbrav1.PowerState_POWER_STATE_ABSENT
	case hypervisor.PowerUnknown:
	}
	return umbrav1.PowerState_POWER_STATE_UNSPECIFIED
}
