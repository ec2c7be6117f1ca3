package flow_test

import (
	"regexp"
	"strings"
	"testing"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// A guest's write that finds no room for the old content of what it overwrites fails, and QEMU pauses the server for it. A
// backup job must end before that.
func TestFullScratchSpaceNeverStopsTheMainServer(t *testing.T) {
	w := newWorld(t, "--scratch-free-min=16777216")
	w.fillScratch("64m", w.mainServerRuns)
	w.mainServerRuns()
	w.mainServerWrites()
	w.inMain("rm", "/run/umbra/ballast")
	w.updatePolicy(func(p *umbrav1.DRPair) { p.Policy.BandwidthBytesPerSecond = 0 })
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING)
}

// When a host's disks are faster than its hostd, it comes to that all the same.
func TestAServerThatFullScratchSpaceHasStoppedGoesOnOnceTheJobHasEnded(t *testing.T) {
	w := newWorld(t, "--scratch-free-min=100") // the job ends when nothing at all is free
	paused := false
	w.fillScratch("80m", func() { paused = paused || !strings.HasPrefix(w.mainServerState(), "running") })
	w.mainServerWrites()
	w.mainServerRuns()
	t.Logf("the server was seen paused: %v", paused)
}

// fillScratch has the scratch files of a long backup job grow until their file system is full, and calls look now and then.
func (w *world) fillScratch(ballast string, look func()) {
	w.t.Helper()
	w.boot(lab.GuestSpec{RateBytes: 4 << 20})
	w.inMain("mount", "-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", "/run/umbra")
	w.protect(func(p *umbrav1.Policy) { p.BandwidthBytesPerSecond = 1 << 20 }) // a job lasts, and its scratch files grow
	w.inMain("fallocate", "-l", ballast, "/run/umbra/ballast")
	_, err := w.WaitPair(w.ctx(), pairID, func(p *umbrav1.DRPair) bool {
		look()
		return p.GetFailure().GetReason() == umbrav1.ErrorReason_ERROR_REASON_NO_SPACE
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mainServerState() string {
	w.t.Helper()
	state, err := w.Main.Virsh(w.ctx(), "domstate", "--reason", guest)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(state)
}

func (w *world) mainServerRuns() {
	w.t.Helper()
	if state := w.mainServerState(); !strings.HasPrefix(state, "running") {
		w.t.Fatalf("the main server is %q", state)
	}
}

var lineEnd = regexp.MustCompile("\n")

// mainServerWrites waits until the guest has announced records that it wrote from now on.
func (w *world) mainServerWrites() {
	w.t.Helper()
	log := w.Main.Console(guest)
	if err := log.SkipToEnd(); err != nil {
		w.t.Fatal(err)
	}
	for range 3 {
		if _, err := log.Wait(w.ctx(), lineEnd); err != nil {
			w.t.Fatalf("the main server stands still: %v", err)
		}
	}
}

func (w *world) inMain(name string, args ...string) {
	w.t.Helper()
	if out, err := w.Main.Command(w.ctx(), name, args...).CombinedOutput(); err != nil {
		w.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}
