package recoverystore

import (
	"errors"
	"flag"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

var everyFault = flag.Bool("every-fault", false, "try every disk fault at every call; without it they take turns")

// TestACrashAtAnyCallLosesNothingThatWasAcknowledged stops the machine at every call that the store makes to its disk, one
// after another, and opens what is left.
func TestACrashAtAnyCallLosesNothingThatWasAcknowledged(t *testing.T) {
	eachCall(t, 1, faultydisk.Crashes(), func(w *shadow) {
		if err := w.live(); w.disk.Broke() && !errors.Is(err, faultydisk.ErrCrash) {
			w.t.Errorf("the store ended with %v", err)
		}
	})
}

// TestAFailedCallCostsAtMostTheOperation fails every call that the store makes to its disk, one after another.
func TestAFailedCallCostsAtMostTheOperation(t *testing.T) {
	eachCall(t, 2, faultydisk.Failures(), (*shadow).liveOn)
}

// TestADiskThatDiesKeepsWhatItHas fails every call from some call on.
func TestADiskThatDiesKeepsWhatItHas(t *testing.T) {
	faults := []faultydisk.Fault{
		{Name: "EIO for ever", Err: unix.EIO, Forever: true},
		{Name: "ENOSPC for ever", Err: unix.ENOSPC, Forever: true},
	}
	eachCall(t, 4, faults, func(w *shadow) {
		if err := w.live(); err != nil && !errors.Is(err, w.disk.Fault().Err) {
			w.t.Errorf("the store ended with %v", err)
		}
	})
}

// eachCall lives a life for each call, with a fault at that call, and checks what is left. Without everyFault the faults take
// turns, and only every so many calls fail.
func eachCall(t *testing.T, every int, faults []faultydisk.Fault, live func(*shadow)) {
	dir := faultydisk.Dir(t)
	chosen := func(at int) []faultydisk.Fault {
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
			ended := !w.disk.Broke()
			w.checkWhatIsLeft()
			if t.Failed() {
				t.Fatalf("with %s at call %d", fault.Name, at)
			}
			if ended {
				t.Logf("faults at %d calls", at/every-1)
				return
			}
		}
	}
}
