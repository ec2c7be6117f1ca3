package shadowserver

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// failedOver is a test that begins with a server that runs from attempt 1, of the only point.
func failedOver(t *testing.T, test func(t *testing.T, w *world, l *life)) {
	t.Helper()
	inBubble(t, 1, func(t *testing.T, w *world) {
		l := w.start(assignment(2, 2, modeRun, attemptOf(1, 0)))
		defer l.end()
		l.phase(assignment(2, 2, modeRun), running)
		test(t, w, l)
	})
}

// waits gives a commit, and waits until the reason why it does not go on is said.
func (l *life) waits(commit *umbrav1.Assignment, reason string) {
	l.t.Helper()
	l.role.Assign([]*umbrav1.Assignment{commit})
	l.until(reason, func(r *umbrav1.AssignmentReport) bool {
		return strings.Contains(r.GetShadow().GetFailure().GetMessage(), reason)
	})
}

func TestCommitLeavesAServerThatStandsAlone(t *testing.T) {
	for name, options := range map[string][]func(*umbrav1.ShadowAssignment){"keeping points": nil, "deleting points": {deletePoints}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 2, func(t *testing.T, w *world) {
				l := w.start(assignment(2, 2, modeRun, attemptOf(1, 0)))
				defer l.end()
				l.phase(assignment(2, 2, modeRun), running)
				l.act(assignment(3, 3, modeRun, attemptOf(2, 1)), running)
				w.target.setPower(serverName, hypervisor.PowerOff)
				w.target.brokenCopy = 1
				r := l.act(assignment(4, 4, modeCommit, append(options, attemptOf(2, 1))...), committed)
				if p := r.GetSteps()[0].GetProgress(); p.GetTotalBytes() != 2*diskBytes {
					t.Errorf("progress is %v", p)
				}
				wantCommitted(t, w, 2)
				want := 2
				if options != nil {
					want = 0
				}
				if got := len(w.replica.store.Points()); got != want {
					t.Errorf("%d points are left, want %d", got, want)
				}
				l.act(assignment(5, 5, modeReceive), committed)
				wantCommitted(t, w, 2)
				l.act(assignment(6, 5, modeDelete), deleted)
				wantCommitted(t, w, 2)
			})
		})
	}
}

// wantCommitted checks that the server runs from disks that need nothing else, and that all else of ours is gone.
func wantCommitted(t *testing.T, w *world, attempt int) {
	t.Helper()
	wantRunning(t, w, attempt)
	s, _ := w.target.server(serverName)
	if strings.Contains(s.xml, w.storeDir()) || s.backed["vda"] || s.backed["vdb"] {
		t.Errorf("the server still needs the store: %v %s", s.backed, s.xml)
	}
	if w.replica.store != nil && len(w.replica.store.Views()) > 0 {
		t.Errorf("views are left: %v", w.replica.store.Views())
	}
	for _, d := range s.disks {
		if fileExists(overlayPath(filepath.Dir(d.Source), d.Target)) {
			t.Errorf("the overlay of disk %s is left", d.Target)
		}
	}
	for n := range 5 {
		if n != attempt && fileExists(w.attemptDir(n)) {
			t.Errorf("the disks of attempt %d are left", n)
		}
	}
}

// TestAServerThatCrashesInACommitLosesNothing crashes it at each call to the hypervisor in turn (docs/faults.md).
func TestAServerThatCrashesInACommitLosesNothing(t *testing.T) {
	for name, restarts := range map[string]bool{"and stays off": false, "and somebody starts it at once": true} {
		t.Run(name, func(t *testing.T) {
			for k, reached := 1, true; reached; k += stride() {
				inBubble(t, 1, func(t *testing.T, w *world) {
					l := w.start(assignment(2, 2, modeRun, attemptOf(1, 0)))
					defer l.end()
					l.phase(assignment(2, 2, modeRun), running)
					w.target.crashAfter(k, restarts)
					l.act(assignment(3, 3, modeCommit, attemptOf(1, 0), deletePoints), committed)
					reached = w.target.calls >= k
					wantAllData(t, w, 1)
					if t.Failed() {
						t.Fatalf("when the server crashes at call %d", k)
					}
				})
			}
		})
	}
}

// wantAllData starts the committed server, if it crashed after its commit, and checks that its disks do without the recovery point.
// The hypervisor complains when one lacks what the recovery point held or what its guest wrote.
func wantAllData(t *testing.T, w *world, attempt int) {
	t.Helper()
	w.target.losePower()
	if err := w.target.Start(t.Context(), serverName); err != nil {
		t.Fatal(err)
	}
	wantCommitted(t, w, attempt)
}

func TestAHostThatLosesItsPowerInACommitLosesNothing(t *testing.T) {
	for k, killed := 1, true; killed; k += stride() {
		inBubble(t, 1, func(t *testing.T, w *world) {
			commit := assignment(3, 3, modeCommit, attemptOf(1, 0), deletePoints)
			w.play([]act{{assigned: assignment(2, 2, modeRun, attemptOf(1, 0)), phase: running}})
			w.dieAt, w.powerless = w.touches+k, true
			at := w.dieAt
			w.play([]act{{assigned: commit, phase: committed}})
			killed, w.dead, w.dieAt = w.touches >= at, false, 0
			wantAllData(t, w, 1)
			if t.Failed() {
				t.Fatalf("when the power is lost at place %d", k)
			}
		})
	}
}

// TestACommitDoesNotCopyWhatItsServerHasLeft has its user start the server from the definition that it had before its first disk was copied.
func TestACommitDoesNotCopyWhatItsServerHasLeft(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		before, _ := w.target.server(serverName)
		before.disks = slices.Clone(before.disks)
		copies := 0
		w.fault = func(_ int, call string) error {
			if call == "before CopyStart" {
				copies++
			}
			if copies == 2 {
				w.target.goBack(serverName, before)
				w.fault = nil
			}
			return nil
		}
		commit := assignment(3, 3, modeCommit, attemptOf(1, 0))
		l.waits(commit, "which it had left: shut it down")
		w.target.setPower(serverName, hypervisor.PowerOff)
		l.phase(commit, committed)
		wantAllData(t, w, 1)
	})
}

func TestACommitThatFindsNoRoomSaysSoAndGivesItBack(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		w.target.setFree(DefaultFreeBytesMin)
		commit := assignment(3, 3, modeCommit, attemptOf(1, 0))
		l.role.Assign([]*umbrav1.Assignment{commit})
		l.until("that there is no room", func(r *umbrav1.AssignmentReport) bool {
			return r.GetShadow().GetFailure().GetReason() == umbrav1.ErrorReason_ERROR_REASON_NO_SPACE
		})
		if path := standalonePath(w.attemptDir(1), "vda"); fileExists(path) {
			t.Errorf("%s is left", path)
		}
		wantRunning(t, w, 1)
		w.target.setFree(1 << 40)
		l.phase(commit, committed)
		wantAllData(t, w, 1)
	})
}

// A switch that ends between two questions, by its user's doing or long after the call, leaves a copy that is in use.
func TestACopyThatTheServerHasGoneOnWithIsNotTakenForLost(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		asked := 0
		w.fault = func(_ int, call string) error {
			if call != "ask CopyStatus" {
				return nil
			}
			if asked++; asked == 3 {
				w.target.change(serverName, func(s *fakeServer) {
					if err := w.target.switchOver(s, "vda"); err != nil {
						t.Error(err)
					}
				})
			}
			return nil
		}
		l.act(assignment(3, 3, modeCommit, attemptOf(1, 0)), committed)
		wantAllData(t, w, 1)
	})
}

func TestACommitCopiesASnapshotThatItsUserHasMadeToo(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		overlay := overlayPath(w.attemptDir(1), "vda")
		snapshot := strings.TrimSuffix(overlay, ".qcow2") + snapshotSuffix
		if err := os.WriteFile(snapshot, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.target.change(serverName, func(s *fakeServer) {
			s.disks[0].Source = snapshot
			s.xml = strings.Replace(s.xml, overlay, snapshot, 1)
			*w.target.image(snapshot) = *w.target.image(overlay)
		})
		l.act(assignment(3, 3, modeCommit, attemptOf(1, 0)), committed)
		wantAllData(t, w, 1)
	})
}

func TestACommitDoesNotEndWithoutADiskThatIsDetachedForNow(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		var detached hypervisor.Disk
		w.target.change(serverName, func(s *fakeServer) {
			detached = s.disks[1]
			s.disks = s.disks[:1]
		})
		commit := assignment(3, 3, modeCommit, attemptOf(1, 0), deletePoints)
		l.waits(commit, "disk vdb of server web was detached")
		w.target.change(serverName, func(s *fakeServer) { s.disks = append(s.disks, detached) })
		l.phase(commit, committed)
		wantAllData(t, w, 1)
	})
}

func TestACommitDoesNotTouchAServerWhoseDisksWereMovedElsewhere(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		var xml string
		w.target.change(serverName, func(s *fakeServer) {
			for i := range s.disks {
				s.disks[i].Source = "/elsewhere/" + s.disks[i].Target
			}
			s.xml = strings.ReplaceAll(s.xml, w.attemptDir(1), "/elsewhere")
			xml = s.xml
		})
		l.waits(assignment(3, 3, modeCommit, attemptOf(1, 0), deletePoints), "moved elsewhere")
		if s, _ := w.target.server(serverName); s.xml != xml || s.power != hypervisor.PowerRunning {
			t.Errorf("the server is %+v", s)
		}
	})
}

func TestACommitWaitsForAServerThatItsUserHasPaused(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		w.target.setPower(serverName, hypervisor.PowerPaused)
		commit := assignment(3, 3, modeCommit, attemptOf(1, 0))
		l.waits(commit, "resume it")
		w.target.setPower(serverName, hypervisor.PowerRunning)
		l.phase(commit, committed)
		wantAllData(t, w, 1)
	})
}

func TestACommittedServersFolderIsNotTakenByANewPairOfThatName(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		l := w.start(assignment(2, 2, modeRun, attemptOf(1, 0)))
		l.phase(assignment(2, 2, modeRun), running)
		l.act(assignment(3, 2, modeCommit, attemptOf(1, 0)), committed)
		l.act(assignment(4, 3, modeDelete), deleted)
		l.end()
		clear(w.target.servers) // its owner keeps the disks, without a definition
		w.replica.gone = false
		w.replica.open()
		w.addPoint(0)
		l = w.start(assignment(1, 5, modeRun, attemptOf(1, 0)))
		defer l.end()
		l.phase(assignment(1, 5, modeRun), running)
		s, _ := w.target.server(serverName)
		if got := s.disks[0].Source; got != w.attemptDir(1)+"-2/vda.qcow2" || !fileExists(w.attemptDir(1)+"/vda-standalone.qcow2") {
			t.Errorf("the new server's disk is %s", got)
		}
		l.act(assignment(2, 6, modeReceive), receiving)
		if !fileExists(w.attemptDir(1) + "/vda-standalone.qcow2") {
			t.Error("the committed server's disks are gone")
		}
	})
}

func TestDeleteRemovesEverythingUncommitted(t *testing.T) {
	failedOver(t, func(t *testing.T, w *world, l *life) {
		l.act(assignment(3, 3, modeDelete), deleted)
		wantNothingLeft(t, w)
		if fileExists(w.replica.dir()) {
			t.Error("the store is left")
		}
	})
}
