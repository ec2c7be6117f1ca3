package flow_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/test/landscape"
)

// slack is how late this test may see on the console what the guest has written: a loaded machine is slow.
const slack = 2 * time.Second

// For points chosen at random: the booted ledger holds every record that was announced before the point was begun, and
// none that was begun after it had been taken.
func TestTenRandomPointsHoldExactlyWhatTheyMust(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{})
	notes, stop := landscape.FollowAnnouncements(t.Context(), w.Main.Console(guest))
	t.Cleanup(stop)
	w.protect(nil)
	points := w.waitPoints(25)
	if err := w.Main.Kill(w.ctx()); err != nil {
		t.Fatal(err)
	}
	first := true
	for _, at := range rand.Perm(len(points))[:10] {
		point := points[at]
		boot := w.change
		if first {
			boot, first = w.failover, false
		}
		found := boot(point.GetName())
		if must := notes.By(point.GetPointTime().AsTime()); found.Last < must {
			t.Errorf("%s was begun after record %d had been announced, and holds only %d", point.GetName(), must, found.Last)
		}
		if most := notes.By(point.GetCompleteTime().AsTime().Add(slack)) + 1; found.Last > most {
			t.Errorf("%s was complete when record %d was being written, and holds %d", point.GetName(), most, found.Last)
		}
	}
}

// While the guest is paused its disk stands still: a copy made then is an independent copy of the point made then.
func TestPointsEqualAnIndependentCopyOfTheirMoment(t *testing.T) {
	w := newWorld(t)
	w.boot(lab.GuestSpec{RecordsPerSecond: 40, RateBytes: 2 << 20, AnnounceEvery: 10})
	w.protect(nil)
	copies := map[string]string{}
	for i := range 10 {
		w.waitPoints(int64(len(w.points())) + int64(rand.IntN(3)))
		w.virshMain("suspend", guest)
		suspended := time.Now()
		// The first point begun after the pause.
		_, err := w.WaitPair(w.ctx(), pairID, func(p *umbrav1.DRPair) bool {
			return p.GetReplication().GetNewestRecoveryPointTime().AsTime().After(suspended)
		})
		if err != nil {
			t.Fatal(err)
		}
		raw := filepath.Join(w.Main.Dir, fmt.Sprintf("copy-%d.raw", i))
		run(t, "qemu-img", "convert", "-U", "-O", "raw", filepath.Join(w.Main.ImagesDir(), guest+"-vda.qcow2"), raw)
		copies[w.points()[0].GetName()] = raw
		w.virshMain("resume", guest)
	}
	for point, raw := range copies {
		w.equalsCopy(point, raw)
	}
}

func (w *world) virshMain(args ...string) {
	w.t.Helper()
	if _, err := w.Main.Virsh(w.ctx(), args...); err != nil {
		w.t.Fatal(err)
	}
}

// equalsCopy boots the point, and compares what stock QEMU reads through its view with the copy.
func (w *world) equalsCopy(point, raw string) {
	w.t.Helper()
	if w.state0() == umbrav1.DRPairState_DR_PAIR_STATE_FAILED_OVER {
		w.change(point)
	} else {
		w.failover(point)
	}
	xml, err := w.Shadow.Virsh(w.ctx(), "dumpxml", guest)
	if err != nil {
		w.t.Fatal(err)
	}
	view := viewOf(w.t, xml)
	w.t.Logf("%s: %s", point, view)
	run(w.t, "qemu-img", "compare", "-U", view, raw)
}

func (w *world) state0() umbrav1.DRPairState {
	pair, err := w.Failover.GetDRPair(w.ctx(), &umbrav1.GetDRPairRequest{Name: pairName})
	if err != nil {
		w.t.Fatal(err)
	}
	return pair.GetDrPair().GetState()
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// viewOf reads from the server's definition where in the store the point's view is.
func viewOf(t *testing.T, xml string) string {
	t.Helper()
	_, backing, ok := strings.Cut(xml, "<backingStore type='file'")
	if !ok {
		t.Fatalf("no backing file:\n%s", xml)
	}
	file := between(t, backing, "<source file='", "'")
	slice := between(t, backing, "<slice type='storage' ", "/>")
	var offset, size int64
	if _, err := fmt.Sscanf(slice, "offset='%d' size='%d'", &offset, &size); err != nil {
		t.Fatalf("%q: %v", slice, err)
	}
	image, err := json.Marshal(map[string]any{"driver": "qcow2", "file": map[string]any{
		"driver": "raw", "offset": offset, "size": size, "file": map[string]any{"driver": "file", "filename": file},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return "json:" + string(image)
}

func between(t *testing.T, text, after, before string) string {
	t.Helper()
	_, rest, ok := strings.Cut(text, after)
	found, _, ended := strings.Cut(rest, before)
	if !ok || !ended {
		t.Fatalf("no %q…%q in %s", after, before, text)
	}
	return found
}
