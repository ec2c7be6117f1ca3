package shadowserver

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func kinds(r *umbrav1.ShadowReport) string {
	var out []string
	for _, s := range r.GetSteps() {
		out = append(out, strings.TrimPrefix(s.GetKind().String(), "STEP_KIND_")+":"+strings.TrimPrefix(s.GetState().String(), "STEP_STATE_"))
	}
	return strings.Join(out, " ")
}

func wantFailure(t *testing.T, r *umbrav1.ShadowReport, reason umbrav1.ErrorReason, step umbrav1.StepKind, message string) {
	t.Helper()
	f := r.GetFailure()
	if f.GetReason() != reason || f.GetStep() != step || !strings.Contains(f.GetMessage(), message) {
		t.Errorf("failure is %v, want %s at %s about %q", f, reason, step, message)
	}
	if f.GetSide() != umbrav1.Side_SIDE_SHADOW || len(f.GetRecommendedActions()) == 0 || f.GetCode() == 0 {
		t.Errorf("failure %v does not tell a person what to do", f)
	}
}

func wantRunning(t *testing.T, w *world, attempt int) {
	t.Helper()
	s, ok := w.target.server(serverName)
	if !ok || s.power != hypervisor.PowerRunning || lineage(s.disks[0].Source) != w.attemptDir(attempt)+"/vda.qcow2" {
		t.Errorf("server is %+v (there: %v), want it to run with the disks of attempt %d", s, ok, attempt)
	}
}

// wantNothingLeft checks that no server, no file and no view of ours is there.
func wantNothingLeft(t *testing.T, w *world) {
	t.Helper()
	if left := w.target.defined(); len(left) > 0 {
		t.Errorf("servers are left: %v", left)
	}
	if fileExists(w.serversDir() + "/" + pair) {
		t.Error("the pair's folder of servers is left")
	}
	if w.replica.store != nil && len(w.replica.store.Views()) > 0 {
		t.Errorf("views are left: %v", w.replica.store.Views())
	}
}

func TestFailoverBootsTheChosenPointAfterReplicationStopped(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		l := w.start(assignment(1, 1, modeReceive))
		defer l.end()
		l.phase(assignment(1, 1, modeReceive), receiving)
		r := l.act(assignment(2, 2, modeRun, attemptOf(1, 0)), running)
		if want := "PREPARE_DISKS:DONE DEFINE_SERVER:DONE START_SERVER:DONE VERIFY_SERVER:DONE"; kinds(r) != want {
			t.Errorf("steps are %s, want %s", kinds(r), want)
		}
		for _, s := range r.GetSteps() {
			if s.GetStartTime() == nil || s.GetEndTime() == nil {
				t.Errorf("step %v has no times", s)
			}
		}
		if r.GetStoppedEpoch() != 2 || r.GetAttempt() != 1 || r.GetServerState() != umbrav1.PowerState_POWER_STATE_RUNNING {
			t.Errorf("report is %v", r)
		}
		wantRunning(t, w, 1)
		s, _ := w.target.server(serverName)
		if s.uuid != serverUUID || !strings.Contains(s.xml, "52:54:00:11:22:33") {
			t.Errorf("the server lost its identity: %s", s.xml)
		}
		if v := w.replica.store.Views(); len(v) != 1 || string(v[0].PointID) != pointName(0) {
			t.Errorf("views are %v", v)
		}
	})
}

func TestARestartOfHostdAdoptsTheRunningServer(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		run := assignment(2, 2, modeRun, attemptOf(1, 0))
		l := w.start(run)
		l.phase(run, running)
		l.end()
		l = w.start(run)
		r := l.phase(run, running)
		if len(r.GetSteps()) != 4 || len(w.target.starts) != 1 || w.target.destroys != 0 {
			t.Errorf("steps %s, starts %v, destroys %d", kinds(r), w.target.starts, w.target.destroys)
		}
		w.target.setPower(serverName, hypervisor.PowerOff)
		l.until("the server is seen to be off", func(r *umbrav1.AssignmentReport) bool {
			return r.GetShadow().GetServerState() == umbrav1.PowerState_POWER_STATE_OFF && r.GetShadow().GetPhase() == running
		})
		l.end()
		l = w.start(run)
		defer l.end()
		r = l.phase(run, running)
		if r.GetServerState() != umbrav1.PowerState_POWER_STATE_OFF || len(w.target.starts) != 1 {
			t.Errorf("a server that its user stopped: state %s, starts %v", r.GetServerState(), w.target.starts)
		}
	})
}

func TestAFailedAttemptIsNotTriedAgainByItself(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		w.target.host.Networks = nil
		run := assignment(2, 2, modeRun, attemptOf(1, 0))
		l := w.start(run)
		r := l.phase(run, failed)
		wantFailure(t, r, umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING, umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, `"lan"`)
		if want := "PREPARE_DISKS:DONE DEFINE_SERVER:FAILED START_SERVER:PENDING VERIFY_SERVER:PENDING"; kinds(r) != want {
			t.Errorf("steps are %s", kinds(r))
		}
		l.end()
		w.target.host.Networks = []string{"lan"}
		l = w.start(run)
		defer l.end()
		again := l.phase(run, failed)
		wantFailure(t, again, umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING, umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, `"lan"`)
		l.act(assignment(3, 3, modeRun, attemptOf(2, 1)), running)
		wantRunning(t, w, 2)
	})
}

func TestWhatStopsAFailover(t *testing.T) {
	tests := map[string]struct {
		points  int
		arrange func(w *world, s *umbrav1.ShadowAssignment)
		reason  umbrav1.ErrorReason
		step    umbrav1.StepKind
		message string
	}{
		"no point at all": {
			points: 0, reason: umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT, step: umbrav1.StepKind_STEP_KIND_PREPARE_DISKS,
		},
		"another point": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND, step: umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, message: pointName(7),
			arrange: func(_ *world, s *umbrav1.ShadowAssignment) { s.Attempt.RecoveryPoint = pointName(7) },
		},
		"memory": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_MEMORY_MISSING, step: umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, message: "512 MiB",
			arrange: func(w *world, _ *umbrav1.ShadowAssignment) { w.target.host.MemoryFreeBytes = 100 << 20 },
		},
		"a mapped network that is missing": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_NETWORK_MISSING, step: umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, message: `"dmz"`,
			arrange: func(_ *world, s *umbrav1.ShadowAssignment) {
				s.Policy.NetworkMappings = []*umbrav1.NetworkMapping{{MainNetwork: "lan", ShadowNetwork: "dmz"}}
			},
		},
		"a foreign server of that name": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_SERVER_NAME_TAKEN, step: umbrav1.StepKind_STEP_KIND_DEFINE_SERVER, message: "not the shadow of this pair",
			arrange: func(w *world, _ *umbrav1.ShadowAssignment) {
				w.target.servers[serverName] = &fakeServer{uuid: "f0", power: hypervisor.PowerRunning, disks: []hypervisor.Disk{{Source: "/x"}}}
			},
		},
		"a server that stops at once": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_VERIFICATION_FAILED, step: umbrav1.StepKind_STEP_KIND_VERIFY_SERVER, message: "stopped",
			arrange: func(w *world, _ *umbrav1.ShadowAssignment) { w.target.dies[w.attemptDir(1)+"/vda.qcow2"] = 2 },
		},
		"an agent that never answers": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_VERIFICATION_FAILED, step: umbrav1.StepKind_STEP_KIND_VERIFY_SERVER, message: "agent",
			arrange: func(w *world, s *umbrav1.ShadowAssignment) {
				w.target.agentFails = 1 << 30
				s.Policy.Verification = &umbrav1.VerificationPolicy{GuestAgent: true, Timeout: durationpb.New(20 * time.Second)}
			},
		},
		"a port that never opens": {
			points: 1, reason: umbrav1.ErrorReason_ERROR_REASON_VERIFICATION_FAILED, step: umbrav1.StepKind_STEP_KIND_VERIFY_SERVER, message: "TCP 10.0.0.5:80",
			arrange: func(w *world, s *umbrav1.ShadowAssignment) {
				w.target.dialError = context.DeadlineExceeded
				s.Policy.Verification = &umbrav1.VerificationPolicy{TcpProbe: "10.0.0.5:80"}
			},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, test.points, func(t *testing.T, w *world) {
				run := assignment(2, 2, modeRun, attemptOf(1, 0))
				if test.arrange != nil {
					test.arrange(w, run.GetShadow())
				}
				foreign := len(w.target.defined())
				l := w.start(run)
				defer l.end()
				r := l.phase(run, failed)
				wantFailure(t, r, test.reason, test.step, test.message)
				if r.GetRunningAttempt() != 0 || len(w.target.defined()) != foreign || w.target.destroys > 1 {
					t.Errorf("servers %v are left; report %v", w.target.defined(), r)
				}
				clear(w.target.servers)
				l.act(assignment(3, 3, modeReceive), receiving)
				wantNothingLeft(t, w)
			})
		})
	}
}

func TestVerificationWaitsForAgentAndPort(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.target.agentFails = 5
		run := assignment(2, 2, modeRun, attemptOf(1, 0))
		run.GetShadow().Policy.Verification = &umbrav1.VerificationPolicy{GuestAgent: true, TcpProbe: "10.0.0.5:80", RunTime: durationpb.New(0)}
		l := w.start(run)
		defer l.end()
		r := l.phase(run, running)
		if m := r.GetSteps()[3].GetMessage(); !strings.Contains(m, "TCP 10.0.0.5:80 and the guest agent answered") {
			t.Errorf("the verification says %q", m)
		}
	})
}

func TestADamagedPointIsBootedOnlyByForce(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.damage(t)
		run := assignment(2, 2, modeRun, attemptOf(1, 0))
		l := w.start(run)
		defer l.end()
		r := l.phase(run, failed)
		wantFailure(t, r, umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED, umbrav1.StepKind_STEP_KIND_PREPARE_DISKS, pointName(0))
		if len(w.target.starts) != 0 {
			t.Error("a damaged point was booted")
		}
		forced := assignment(3, 3, modeRun, attemptOf(2, 0))
		forced.GetShadow().Attempt.Force = true
		l.act(forced, running)
		wantRunning(t, w, 2)
	})
}

func TestReceiveClearsWhatAFailoverLeft(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		l := w.start(assignment(2, 2, modeRun, attemptOf(1, 0)))
		l.phase(assignment(2, 2, modeRun), running)
		l.end()
		l = w.start(assignment(3, 3, modeReceive))
		defer l.end()
		l.phase(assignment(3, 3, modeReceive), receiving)
		wantNothingLeft(t, w)
		if !w.replica.accepts() {
			t.Error("nothing is accepted")
		}
	})
}

func TestStopKeepsTheOverlaysAndRemovesTheServer(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		l := w.start(assignment(2, 2, modeRun, attemptOf(1, 0)))
		defer l.end()
		l.phase(assignment(2, 2, modeRun), running)
		l.role.Assign([]*umbrav1.Assignment{assignment(3, 3, modeStop)})
		l.until("no server", func(r *umbrav1.AssignmentReport) bool {
			s := r.GetShadow()
			return s.GetPhase() == stopped && s.GetServerState() == umbrav1.PowerState_POWER_STATE_ABSENT && s.GetStoppedEpoch() == 3
		})
		if len(w.target.defined()) != 0 || !fileExists(w.attemptDir(1)+"/vda.qcow2") {
			t.Errorf("servers %v", w.target.defined())
		}
	})
}

func TestAnOlderAssignmentIsIgnoredAlsoAfterARestart(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		l := w.start(assignment(5, 2, modeRun, attemptOf(1, 0)))
		l.phase(assignment(5, 2, modeRun), running)
		l.end()
		l = w.start(assignment(4, 1, modeReceive))
		time.Sleep(time.Minute) // of the bubble: everything that would happen has happened
		wantRunning(t, w, 1)
		l.end()
	})
}

func TestReadinessSaysWhyAFailoverWouldNotWork(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, w *world) {
		receive := assignment(1, 1, modeReceive)
		l := w.start(receive)
		defer l.end()
		reason := func(want string) {
			t.Helper()
			l.until(want, func(r *umbrav1.AssignmentReport) bool {
				c := r.GetShadow().GetConditions()
				return len(c) == 1 && c[0].GetType() == ConditionReady && c[0].GetReason() == want && c[0].GetLastTransitionTime() != nil
			})
		}
		reason("NO_RECOVERY_POINT")
		w.addPoint(0)
		l.role.Changed(pair)
		reason(ReasonReady)
		set := func(change func()) { w.target.mu.Lock(); defer w.target.mu.Unlock(); change() }
		set(func() { w.target.host.Networks = nil })
		reason("NETWORK_MISSING")
		set(func() { w.target.host.Networks = []string{"lan"}; w.target.host.MemoryFreeBytes = 1 })
		reason("MEMORY_MISSING")
		set(func() { w.target.host.MemoryFreeBytes = 4 << 30; w.target.cannotRun = context.Canceled })
		reason("MACHINE_UNSUPPORTED")
		set(func() { w.target.cannotRun = nil })
		reason(ReasonReady)
	})
}

func TestAHypervisorThatIsAwayForAWhileIsWaitedFor(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		back := time.Now().Add(20 * time.Second)
		w.fault = func(_ int, op string) error {
			if time.Now().Before(back) && (strings.HasPrefix(op, "ask ") || op == "before Define" || op == "before Start") {
				return hypervisor.ErrUnavailable
			}
			return nil
		}
		run := assignment(2, 2, modeRun, attemptOf(1, 0))
		l := w.start(run)
		defer l.end()
		l.phase(run, running)
		wantRunning(t, w, 1)
	})
}

func TestAConfigurationThatCouldLoseACommittedServerIsRefused(t *testing.T) {
	inBubble(t, 0, func(t *testing.T, w *world) {
		l := w.start()
		defer l.end()
		cfg := l.role.cfg
		for _, dir := range []string{cfg.StoreDir, cfg.StoreDir + "/servers", "relative"} {
			cfg.ServersDir = dir
			if _, err := New(cfg); err == nil {
				t.Errorf("servers in %s are accepted with stores in %s", dir, cfg.StoreDir)
			}
		}
	})
}
