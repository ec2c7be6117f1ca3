package recoverystore

import (
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var everyFault = flag.Bool("every-fault", false, "try every disk fault at every call; without it they take turns")

// TestACrashAtAnyCallLosesNothingThatWasAcknowledged stops the machine at every call that the store makes to its disk, one
// after another, and opens what is left.
func TestACrashAtAnyCallLosesNothingThatWasAcknowledged(t *testing.T) {
	faults := []diskFault{
		{name: "killed", err: errCrash},
		{name: "power lost, writes reordered and torn", err: errCrash, lose: func(r *rand.Rand) loss { return loss(r.IntN(3)) }},
		{name: "power lost, nothing unflushed kept", err: errCrash, lose: func(*rand.Rand) loss { return lossAll }},
	}
	eachCall(t, 1, faults, func(w *shadow) {
		if err := w.live(); w.disk.broke && !errors.Is(err, errCrash) {
			w.t.Errorf("the store ended with %v", err)
		}
	})
}

// TestAFailedCallCostsAtMostTheOperation fails every call that the store makes to its disk, one after another.
func TestAFailedCallCostsAtMostTheOperation(t *testing.T) {
	faults := []diskFault{
		{name: "EIO", err: unix.EIO},
		{name: "ENOSPC", err: unix.ENOSPC},
		{name: "EIO after it was done", err: unix.EIO, done: true},
		{name: "ENOSPC after it was done", err: unix.ENOSPC, done: true},
		{name: "short write", err: unix.ENOSPC, short: true},
	}
	eachCall(t, 2, faults, (*shadow).liveOn)
}

// TestADiskThatDiesKeepsWhatItHas fails every call from some call on.
func TestADiskThatDiesKeepsWhatItHas(t *testing.T) {
	faults := []diskFault{
		{name: "EIO for ever", err: unix.EIO, forever: true},
		{name: "ENOSPC for ever", err: unix.ENOSPC, forever: true},
	}
	eachCall(t, 4, faults, func(w *shadow) {
		if err := w.live(); err != nil && !errors.Is(err, w.disk.fault.err) {
			w.t.Errorf("the store ended with %v", err)
		}
	})
}

// memoryDir is a folder in memory where there is one: what a crash loses is decided here, not by the file system.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "umbra-store-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// eachCall lives a life for each call, with a fault at that call, and checks what is left. Without everyFault the faults take
// turns, and only every so many calls fail.
func eachCall(t *testing.T, every int, faults []diskFault, live func(*shadow)) {
	dir := memoryDir(t)
	chosen := func(at int) []diskFault {
		if *everyFault {
			return faults
		}
		return faults[at%len(faults):][:1]
	}
	if *everyFault {
		every = 1
	}
	for at := every; ; at += every {
		for _, fault := range chosen(at / every) {
			w := newShadow(t, filepath.Join(dir, "store"), fault, at)
			live(w)
			ended := !w.disk.broke
			w.checkWhatIsLeft()
			if t.Failed() {
				t.Fatalf("with %s at call %d", fault.name, at)
			}
			if ended {
				t.Logf("faults at %d calls", at/every-1)
				return
			}
		}
	}
}
