package replicate

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
)

const (
	shutDownPolicy   = umbrav1.OnMainReturn_ON_MAIN_RETURN_SHUT_DOWN
	disconnectPolicy = umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK
	leavePolicy      = umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING
)

func fenceWith(p umbrav1.OnMainReturn) func(*umbrav1.Assignment, *umbrav1.MainAssignment) {
	return func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		a.Epoch, m.Mode, m.Policy.OnMainReturn = 2, umbrav1.MainMode_MAIN_MODE_FENCE, p
	}
}

func replicateAgain(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
	a.Epoch, m.ResyncGeneration = 3, 1
}

// untilOff waits until the fenced server is off; FENCED alone says no more than that it is harmless.
func (r *rig) untilOff(generation uint64) {
	r.t.Helper()
	r.until("fenced and off", func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return m.GetPhase() == umbrav1.MainPhase_MAIN_PHASE_FENCED && a.GetGeneration() >= generation &&
			m.GetFenceMessage() == fencedShutDown
	})
}

// fencer is a source whose calls of the fence a test can hold up or have fail. What is nil goes through.
type fencer struct {
	*testSource
	links    func(up bool) error
	shutdown func(ctx context.Context, grace time.Duration) error
}

func (s *fencer) SetLinks(ctx context.Context, server string, up bool) error {
	if s.links != nil {
		if err := s.links(up); err != nil {
			return err
		}
	}
	return s.testSource.SetLinks(ctx, server, up)
}

func (s *fencer) Shutdown(ctx context.Context, server string, grace time.Duration) error {
	if s.shutdown != nil {
		if err := s.shutdown(ctx, grace); err != nil {
			return err
		}
	}
	return s.testSource.Shutdown(ctx, server, grace)
}

func TestFencingIsReportedOnceTheServerIsDisconnectedAndDoesNotWaitForItsShutdown(t *testing.T) {
	r := build(t, mib)
	goOff := make(chan struct{})
	r.cfg.Source = &fencer{testSource: r.source, shutdown: func(ctx context.Context, _ time.Duration) error {
		select {
		case <-goOff:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	r.start()
	g := r.assign(fenceWith(shutDownPolicy))
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_FENCED, g)
	if r.source.state().linksUp || report.GetFenceMessage() != fencedGoingOff {
		t.Errorf("fenced while connected, or without saying how: %v", report)
	}
	close(goOff)
	r.untilOff(g)
	if power := r.source.state().server.Power; power != hypervisor.PowerOff {
		t.Errorf("the server is %v", power)
	}
}

func TestAServerThatCannotBeDisconnectedLosesItsPowerBeforeItCountsAsFenced(t *testing.T) {
	r := build(t, mib)
	graces := make(chan time.Duration, 100)
	r.cfg.Source = &fencer{
		testSource: r.source,
		links:      func(bool) error { return errors.New("no such device") },
		shutdown:   func(_ context.Context, grace time.Duration) error { graces <- grace; return nil },
	}
	r.start()
	g := r.assign(fenceWith(shutDownPolicy))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_FENCED, g)
	if power := r.source.state().server.Power; power != hypervisor.PowerOff {
		t.Errorf("fenced, connected and %v", power)
	}
	if grace := <-graces; grace != 0 {
		t.Errorf("a connected server was given %v to shut down", grace)
	}
}

func TestAServerThatCannotBeDisconnectedIsNotFencedWherePolicyKeepsItRunning(t *testing.T) {
	r := build(t, mib)
	r.cfg.Source = &fencer{testSource: r.source, links: func(bool) error { return errors.New("no such device") }}
	r.start()
	g := r.assign(fenceWith(disconnectPolicy))
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_ERROR, g)
	if report.GetFailure() == nil || r.source.count("shutdown") != 0 {
		t.Errorf("not fenced: %v", report)
	}
}

func TestFencingShutsTheServerDownAgainWhenSomebodyStartsItAndReplicatingStartsItOnce(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	g := r.assign(fenceWith(umbrav1.OnMainReturn_ON_MAIN_RETURN_UNSPECIFIED))
	r.untilOff(g)
	if r.source.jobRuns() {
		t.Error("a backup job runs on a fenced server")
	}
	r.source.locked(func() { r.source.server.Power = hypervisor.PowerRunning })
	r.until("a second shutdown", func(*umbrav1.AssignmentReport, *umbrav1.MainReport) bool { return r.source.count("shutdown") == 2 })

	r.assign(replicateAgain)
	r.nextPoint()
	if n := r.source.count("start"); n != 1 || !r.source.state().linksUp {
		t.Errorf("the server was started %d times, links up: %v", n, r.source.state().linksUp)
	}
	// Shut down by its owner, it stays off.
	r.source.locked(func() { r.source.server.Power = hypervisor.PowerOff })
	report := r.until("not running", func(_ *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool { return m.GetFailure() != nil })
	if report.GetFailure().GetReason() != umbrav1.ErrorReason_ERROR_REASON_SERVER_NOT_RUNNING ||
		report.GetPhase() != umbrav1.MainPhase_MAIN_PHASE_REPLICATING {
		t.Errorf("a server that is off: %v", report)
	}
	r.stop()
	r.start()
	r.assign(replicateAgain)
	r.until("still not running", func(_ *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool { return m.GetFailure() != nil })
	if n := r.source.count("start"); n != 1 {
		t.Errorf("a server that its owner shut down was started")
	}
	r.source.locked(func() { r.source.server.Power = hypervisor.PowerRunning })
	r.nextPoint()
}

// It may still act on the request, minutes later, when it has become the main server again.
func TestAServerThatWasAskedToShutDownGoesOffBeforeItIsTheMainServerAgain(t *testing.T) {
	r := build(t, mib)
	asked := make(chan struct{}, 100)
	deaf := &fencer{testSource: r.source, shutdown: func(ctx context.Context, _ time.Duration) error {
		asked <- struct{}{}
		<-ctx.Done() // the daemon stops before the server has answered
		return ctx.Err()
	}}
	r.cfg.Source = deaf
	r.start()
	r.assign(fenceWith(shutDownPolicy))
	<-asked
	r.stop()
	r.cfg.Source = r.source
	r.start()
	r.assign(replicateAgain)
	r.nextPoint()
	if calls := r.source.state(); r.source.count("shutdown") != 1 || r.source.count("start") != 1 || !calls.linksUp {
		t.Errorf("calls %v, links up %v", calls.calls, calls.linksUp)
	}
}

func TestFencingIsJournalledBeforeTheServerIsTouched(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.stop()
	load := func() record {
		rec, _, err := journal.Load[record](r.journal, journal.Replicate, testPair)
		if err != nil {
			t.Error(err)
		}
		return rec
	}
	var atDisconnection, atShutdown record
	r.cfg.Source = &fencer{
		testSource: r.source,
		links:      func(bool) error { atDisconnection = load(); return nil },
		shutdown:   func(context.Context, time.Duration) error { atShutdown = load(); return nil },
	}
	r.start()
	r.untilOff(r.assign(fenceWith(shutDownPolicy)))
	r.stop()
	if !atDisconnection.LinksDown || !atDisconnection.AutostartTaken || !atDisconnection.AutostartWas {
		t.Errorf("the journal said %+v when the server was disconnected", atDisconnection)
	}
	if !atShutdown.ShutDown || atShutdown.WentOff {
		t.Errorf("the journal said %+v when the server was shut down", atShutdown)
	}
}

func TestFencingByDisconnectionIsUndoneWhenTheRoleReturns(t *testing.T) {
	r := build(t, mib)
	r.start()
	g := r.assign(fenceWith(disconnectPolicy))
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_FENCED, g)
	if r.source.state().linksUp || r.source.state().server.Power != hypervisor.PowerRunning {
		t.Error("fenced, and connected or off")
	}
	r.assign(replicateAgain)
	r.nextPoint()
	if !r.source.state().linksUp || r.source.count("links true") != 1 {
		t.Error("the links were not set up once")
	}
}

func TestAFencedServerThatIsOffWouldComeBackDisconnected(t *testing.T) {
	for _, policy := range []umbrav1.OnMainReturn{shutDownPolicy, disconnectPolicy} {
		r := build(t, mib)
		r.source.locked(func() { r.source.server.Power = hypervisor.PowerOff })
		r.start()
		g := r.assign(fenceWith(policy))
		r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_FENCED, g)
		if r.source.state().linksUp {
			t.Errorf("%v: started by hand, the server would be connected", policy)
		}
	}
}

func TestAServerThatIsLeftRunningIsReportedSo(t *testing.T) {
	r := build(t, mib)
	r.start()
	g := r.assign(fenceWith(leavePolicy))
	report := r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_FENCED, g)
	if report.GetServerState() != umbrav1.PowerState_POWER_STATE_RUNNING || r.source.count("shutdown") != 0 || !r.source.state().linksUp {
		t.Errorf("left running: %v", report)
	}
}

func TestAFencedServerThatIsOffIsReleasedAndStaysOff(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.untilOff(r.assign(fenceWith(shutDownPolicy)))
	g := r.assign(func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		a.Epoch, m.Mode = 2, umbrav1.MainMode_MAIN_MODE_RELEASE
	})
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g)
	s := r.source.state()
	if s.server.Power != hypervisor.PowerOff || !s.server.Autostart || !s.linksUp || len(s.checkpoints) != 0 {
		t.Errorf("released: %+v", s)
	}
}

func TestAServerWhoseShadowHasBecomeThePrimaryServerIsReleasedAsFencingLeftIt(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.untilOff(r.assign(fenceWith(shutDownPolicy)))
	g := r.assign(func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		a.Epoch, m.Mode, m.KeepFenced = 2, umbrav1.MainMode_MAIN_MODE_RELEASE, true
	})
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g)
	if s := r.source.state(); s.server.Power != hypervisor.PowerOff || s.server.Autostart || s.linksUp {
		t.Errorf("released: %+v", s)
	}
}

func TestAServerThatIsOffAndWhoseImagesAreAwayIsReleasedWithItsCheckpoints(t *testing.T) {
	r := build(t, mib)
	r.start()
	r.assign(nil)
	r.nextPoint()
	r.untilOff(r.assign(fenceWith(shutDownPolicy)))
	r.source.locked(func() { r.source.unreachable = true })
	g := r.assign(func(a *umbrav1.Assignment, m *umbrav1.MainAssignment) {
		a.Epoch, m.Mode = 2, umbrav1.MainMode_MAIN_MODE_RELEASE
	})
	r.untilPhase(umbrav1.MainPhase_MAIN_PHASE_RELEASED, g)
	if len(r.source.state().checkpoints) == 0 {
		t.Error("checkpoints that cannot be deleted are gone")
	}
}

func TestOtherWorkIsReportedAsTakenUpBeforeTheEarlierWorkHasEnded(t *testing.T) {
	r := build(t, mib)
	held, release := make(chan struct{}), make(chan struct{})
	r.cfg.Source = &fencer{testSource: r.source, links: func(bool) error {
		close(held)
		<-release
		return nil
	}}
	r.start()
	r.assign(fenceWith(leavePolicy))
	r.assign(fenceWith(disconnectPolicy))
	<-held
	g := r.assign(replicateAgain)
	r.until("taken up, without a phase", func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return a.GetGeneration() == g && a.GetEpoch() == 3 && m.GetPhase() == umbrav1.MainPhase_MAIN_PHASE_UNSPECIFIED
	})
	close(release)
}

// hanger's hypervisor cannot end a job for a while.
type hanger struct {
	*testSource
	fails atomic.Int64
	ended chan struct{}
}

func (h *hanger) EndBackup(ctx context.Context, server, runDir string) error {
	if h.fails.Add(-1) >= 0 {
		return errors.New("the hypervisor has failed")
	}
	err := h.testSource.EndBackup(ctx, server, runDir)
	select {
	case h.ended <- struct{}{}:
	default:
	}
	return err
}

func TestABackupJobThatCouldNotBeEndedIsEndedWhileTheServerIsFencedOrPaused(t *testing.T) {
	for _, c := range []struct {
		phase  umbrav1.MainPhase
		change func(*umbrav1.Assignment, *umbrav1.MainAssignment)
	}{
		{umbrav1.MainPhase_MAIN_PHASE_FENCED, fenceWith(disconnectPolicy)},
		{umbrav1.MainPhase_MAIN_PHASE_PAUSED, mode(umbrav1.MainMode_MAIN_MODE_PAUSE)},
	} {
		t.Run(c.phase.String(), func(t *testing.T) {
			r := build(t, mib)
			h := &hanger{testSource: r.source, ended: make(chan struct{}, 1)}
			h.fails.Store(2)
			r.cfg.Source = h
			r.start()
			r.untilPhase(c.phase, r.assign(c.change))
			select {
			case <-h.ended:
			case <-time.After(30 * time.Second):
				t.Error("the job is never ended")
			}
		})
	}
}
