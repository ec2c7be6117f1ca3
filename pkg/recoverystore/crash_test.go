package recoverystore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// shadow is a store on a faulty disk beside a model of what was acknowledged.
type shadow struct {
	t    testing.TB
	dir  string
	disk *faultyDisk
	s    *Store
	d    *Draft

	points map[PointID]modelState // acknowledged
	latest modelState             // with what is pending
	saved  modelState             // as of the last commit that was acknowledged
	disks  []DiskSpec

	// What the operation under way may have done when it does not return.
	maybeNew   map[PointID]modelState
	maybeGone  map[PointID]bool
	maybeSaved []modelState
}

var shadowDisks = []DiskSpec{{"vda", 20*ClusterSize - 512}, {"vdb", 1030 * ClusterSize}}

func newShadow(t testing.TB, dir string, fault diskFault, at int) *shadow {
	w := &shadow{
		t: t, dir: dir, disk: newFaultyDisk(t, fault, at),
		points: map[PointID]modelState{}, saved: modelState{"vda": {}, "vdb": {}},
	}
	w.latest = w.saved.clone()
	w.settle()
	return w
}

// settle says that nothing is in doubt.
func (w *shadow) settle() {
	w.maybeNew, w.maybeGone, w.maybeSaved = map[PointID]modelState{}, map[PointID]bool{}, nil
}

func (w *shadow) open() error {
	if w.s != nil {
		return nil
	}
	s, err := Open(context.Background(), w.dir, Options{
		noIndexSync: true, ReserveBytes: -1, wrapFile: w.disk.wrap, wrapIndex: w.disk.wrapIndex,
	})
	if err != nil {
		return err
	}
	w.s = s
	return nil
}

func (w *shadow) close() error {
	if w.s == nil {
		return nil
	}
	err := w.s.Close()
	w.s, w.d = nil, nil
	w.latest = w.saved.clone()
	return err
}

func (w *shadow) reopen() error {
	if err := w.close(); err != nil {
		return err
	}
	return w.open()
}

func (w *shadow) ensure(specs ...DiskSpec) error {
	if err := w.s.EnsureDisks(context.Background(), specs); err != nil {
		return err
	}
	for _, d := range specs {
		inPoint := func(m modelState) bool { return m[d.Name] != nil }
		if !slices.Contains(w.disks, d) && !slices.ContainsFunc(slices.Collect(maps.Values(w.points)), inPoint) {
			w.saved[d.Name], w.latest[d.Name] = modelDisk{}, modelDisk{} // removed with the last point that had it
		}
	}
	w.disks = specs
	return nil
}

func (w *shadow) begin() (err error) {
	if w.d == nil {
		w.d, err = w.s.Begin()
	}
	return err
}

// write writes one cluster for each tag.
func (w *shadow) write(disk string, first uint64, tags ...uint32) error {
	if err := w.begin(); err != nil {
		return err
	}
	size := w.disks[slices.IndexFunc(w.disks, func(d DiskSpec) bool { return d.Name == disk })].SizeBytes
	next := w.latest.clone()
	var data []byte
	for i, tag := range tags {
		cluster := first + uint64(i)
		data = append(data, clusterOf(tag, int(min(ClusterSize, size-int64(cluster)*ClusterSize)))...)
		next[disk][cluster] = tag
	}
	if err := w.d.WriteClusters(disk, first, data, nil); err != nil {
		return err
	}
	w.latest = next
	return nil
}

func (w *shadow) zero(disk string, first, count uint64) error {
	if err := w.begin(); err != nil {
		return err
	}
	if err := w.d.WriteZeros(disk, first, count); err != nil {
		return err
	}
	for c := first; c < first+count; c++ {
		delete(w.latest[disk], c)
	}
	return nil
}

func (w *shadow) progress() error {
	if err := w.begin(); err != nil {
		return err
	}
	w.maybeSaved = []modelState{w.latest.clone()}
	if err := w.d.SaveProgress(context.Background(), Coverage{Checkpoint: "c"}); err != nil {
		return err
	}
	w.saved = w.latest.clone()
	w.settle()
	return nil
}

// complete makes the draft the point of this number, unless it is there.
func (w *shadow) complete(n uint64) error {
	if w.points[pointID(n)] != nil {
		return nil
	}
	if err := w.begin(); err != nil {
		return err
	}
	id, now := pointID(n), w.pointState()
	w.maybeNew[id], w.maybeSaved = now, []modelState{w.latest.clone()}
	if _, err := w.d.Complete(context.Background(), PointMeta{ServerXML: "<domain/>", Attachments: map[string][]byte{"vars": {1, 2, 3}}}); err != nil {
		return err
	}
	w.d, w.points[id], w.saved = nil, now, w.latest.clone()
	w.settle()
	return nil
}

// pointState is what a point of now has: the active disks.
func (w *shadow) pointState() modelState {
	out := modelState{}
	for _, d := range w.disks {
		out[d.Name] = maps.Clone(w.latest[d.Name])
	}
	return out
}

func (w *shadow) ids() []PointID { return slices.Sorted(maps.Keys(w.points)) }

func (w *shadow) remove(ids ...PointID) error {
	ids = slices.DeleteFunc(ids, func(id PointID) bool { return w.points[id] == nil })
	for _, id := range ids {
		w.maybeGone[id] = true
	}
	if err := w.s.Delete(context.Background(), ids...); err != nil {
		return err
	}
	for _, id := range ids {
		delete(w.points, id)
	}
	w.settle()
	return nil
}

func (w *shadow) view(id PointID) error {
	v, err := w.s.OpenView(context.Background(), id, ViewOptions{})
	if err != nil {
		return err
	}
	for _, d := range v.Disks {
		if err := compareView(d, w.points[id][d.Name]); err != nil {
			w.t.Errorf("point %s disk %s: %v", id, d.Name, err)
		}
	}
	return nil
}

func (w *shadow) discard() error {
	if w.d != nil {
		if err := w.d.Abandon(); err != nil {
			return err
		}
		w.d = nil
	}
	base := modelState{"vda": {}, "vdb": {}}
	if ids := w.ids(); len(ids) > 0 {
		for name, disk := range w.points[ids[len(ids)-1]] {
			base[name] = maps.Clone(disk)
		}
	}
	w.maybeSaved = []modelState{base}
	if err := w.s.DiscardDraft(context.Background()); err != nil {
		return err
	}
	w.saved, w.latest = base, base.clone()
	w.settle()
	return nil
}

func (w *shadow) scrub() error {
	for {
		r, err := w.s.Scrub(context.Background(), 1<<20)
		if err != nil {
			return err
		}
		if len(r.Bad) > 0 {
			w.t.Errorf("scrub finds damage: %+v", r.Bad)
		}
		if r.Done {
			return nil
		}
	}
}

// life is all that a store goes through: every kind of change, more than once. Each step may be repeated.
func (w *shadow) life() []func() error {
	return []func() error{
		w.open,
		func() error { return w.ensure(shadowDisks...) },
		func() error { return w.write("vda", 2, 1, 2, 3, 4) },
		func() error { return w.write("vdb", 1022, 5, 6, 7) },
		w.progress,
		func() error { return w.write("vda", 3, 8) },
		func() error { return w.write("vda", 19, 9) },
		func() error { return w.complete(1) },
		func() error { return w.write("vda", 2, 10) },
		func() error { return w.zero("vdb", 1023, 4) },
		func() error { return w.complete(2) },
		func() error { return w.view(pointID(1)) },
		w.reopen,
		func() error { return w.write("vda", 2, 11, 12) },
		func() error { return w.write("vdb", 1023, 13) },
		func() error { return w.complete(3) },
		func() error { return w.s.CloseView(context.Background(), pointID(1)) },
		func() error { return w.remove(pointID(2)) },
		func() error { return w.write("vdb", 0, 14, 15, 16) },
		w.progress,
		func() error { return w.write("vda", 4, 17) },
		w.discard,
		func() error { return w.write("vda", 5, 18, 19) },
		func() error { return w.complete(4) },
		w.scrub,
		func() error { return w.view(pointID(4)) },
		func() error { return w.ensure(shadowDisks[0]) },
		func() error { return w.write("vda", 0, 20) },
		func() error { return w.complete(5) },
		func() error { return w.remove(pointID(1), pointID(3)) },
		func() error { return w.s.CloseView(context.Background(), pointID(4)) },
		func() error { return w.remove(pointID(4)) },
		func() error { return w.write("vda", 0, 21, 22, 23) },
		func() error { return w.complete(6) },
		func() error { return w.remove(pointID(5)) },
		w.reopen,
		w.close,
	}
}

// live ends at the first error.
func (w *shadow) live() error {
	for _, step := range w.life() {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// liveOn does after an error what hostd does: it tries again, and opens the store anew when that has stopped.
func (w *shadow) liveOn() {
	w.t.Helper()
	for i, step := range w.life() {
		err := step()
		if err == nil {
			continue
		}
		if !errors.Is(err, w.disk.fault.err) {
			w.t.Fatalf("step %d ended with %v, which does not say %v", i, err, w.disk.fault.err)
		}
		w.afterError(err)
		if err := step(); err != nil {
			w.t.Fatalf("step %d after %v, tried again: %v", i, err, err)
		}
	}
}

// afterError wants what was acknowledged to be there, and nothing done that was called failed. Only of a store that
// stopped nobody can say what the last operation did; and a deletion goes on.
func (w *shadow) afterError(err error) {
	w.t.Helper()
	switch {
	case w.s == nil || errors.Is(w.s.closed, ErrClosed):
		if openErr := w.reopen(); openErr != nil {
			w.t.Fatalf("open after %v: %v", err, openErr)
		}
	case errors.Is(err, ErrNoSpace) && (w.d == nil || !w.d.ended):
		w.maybeNew, w.maybeSaved = nil, nil
	default:
		w.maybeNew, w.maybeSaved = nil, nil
		if w.d != nil {
			if err := w.d.Abandon(); err != nil {
				w.t.Fatal(err)
			}
			w.d, w.latest = nil, w.saved.clone()
		}
	}
	w.checkAll()
	w.settle()
}

// checkAll holds the open store against everything that was acknowledged.
func (w *shadow) checkAll() {
	w.t.Helper()
	w.checkPoints()
	w.checkLatest()
	if err := w.s.fsck(); err != nil {
		w.t.Errorf("fsck: %v", err)
	}
}

// checkPoints also decides what was in doubt.
func (w *shadow) checkPoints() {
	w.t.Helper()
	listed := map[PointID]bool{}
	for _, p := range w.s.Points() {
		listed[p.ID] = true
		if state, ok := w.maybeNew[p.ID]; ok {
			w.points[p.ID] = state
		}
		want, known := w.points[p.ID]
		if !known || p.Damaged {
			w.t.Errorf("point %s: known %v, damaged %v", p.ID, known, p.Damaged)
			continue
		}
		w.checkPoint(p.ID, want)
	}
	for id := range w.points {
		if listed[id] {
			continue
		}
		if !w.maybeGone[id] {
			w.t.Errorf("point %s is lost", id)
		}
		delete(w.points, id)
	}
}

func (w *shadow) checkPoint(id PointID, want modelState) {
	w.t.Helper()
	full, err := w.s.Point(id)
	if err != nil || full.ServerXML != "<domain/>" || string(full.Attachments["vars"]) != "\x01\x02\x03" {
		w.t.Errorf("point %s: %+v, %v", id, full, err)
	}
	v, err := w.s.OpenView(context.Background(), id, ViewOptions{})
	if err != nil {
		w.t.Errorf("view of %s: %v", id, err)
		return
	}
	if len(v.Disks) != len(want) {
		w.t.Errorf("point %s has %d disks, want %d", id, len(v.Disks), len(want))
	}
	for _, d := range v.Disks {
		if err := compareView(d, want[d.Name]); err != nil {
			w.t.Errorf("point %s disk %s: %v", id, d.Name, err)
		}
	}
	if !full.Pinned {
		if err := w.s.CloseView(context.Background(), id); err != nil {
			w.t.Errorf("close view of %s: %v", id, err)
		}
	}
}

// checkLatest wants the latest state to be the one that was saved last, or the one that was being saved.
func (w *shadow) checkLatest() {
	w.t.Helper()
	have := modelState{}
	for _, spec := range w.s.Disks() {
		sums := make([]Checksum, (spec.SizeBytes+ClusterSize-1)/ClusterSize)
		if err := w.s.Checksums(context.Background(), spec.Name, 0, sums, FromData); err != nil {
			w.t.Error(err)
			return
		}
		have[spec.Name] = modelDisk{}
		for c, sum := range sums {
			if sum.State != ChecksumZero {
				have[spec.Name][uint64(c)] = w.tagOf(spec, uint64(c), sum)
			}
		}
	}
	if w.d != nil {
		if !sameDisks(have, w.latest) {
			w.t.Errorf("the latest state is %v, want %v", have, w.latest)
		}
		return
	}
	for _, state := range append(w.maybeSaved, w.saved) {
		if sameDisks(have, state) {
			w.saved, w.latest = state, state.clone()
			return
		}
	}
	w.t.Errorf("the latest state is %v, want %v or %v", have, w.saved, w.maybeSaved)
}

func sameDisks(have, want modelState) bool {
	for name, disk := range have {
		if !maps.Equal(disk, want[name]) {
			return false
		}
	}
	return true
}

func (w *shadow) tagOf(spec DiskSpec, cluster uint64, sum Checksum) uint32 {
	for tag := range uint32(100) {
		n := int(min(ClusterSize, spec.SizeBytes-int64(cluster)*ClusterSize))
		if sum.State == ChecksumData && sum.Sum == tagSum(tag, n) {
			return tag
		}
	}
	w.t.Errorf("disk %s cluster %d holds what nobody wrote: %+v", spec.Name, cluster, sum)
	return 0
}

var tagSums = map[[2]int]Sum{}

func tagSum(tag uint32, n int) Sum {
	at := [2]int{int(tag), n}
	sum, ok := tagSums[at]
	if !ok {
		sum = hashClusters(clusterOf(tag, n))[0]
		tagSums[at] = sum
	}
	return sum
}

// checkNothingLeaks wants no file that no record explains, and no blocks but those of clusters in use and of open views.
func (w *shadow) checkNothingLeaks() {
	w.t.Helper()
	want := map[string]bool{indexFileName: true}
	for _, d := range w.s.disks {
		want[filepath.Base(d.path)] = true
		allocated, err := d.file.AllocatedBytes()
		if err != nil {
			w.t.Error(err)
		}
		views := uint64(len(w.s.views)) * d.SlotClusters
		// The file system's own blocks count too.
		if most := int64(d.space.used()+views)*ClusterSize + ClusterSize; allocated > most {
			w.t.Errorf("disk %s takes %d bytes, at most %d are explained", d.Name, allocated, most)
		}
	}
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if !want[e.Name()] {
			w.t.Errorf("file %s is left", e.Name())
		}
	}
	if len(entries) < len(want) {
		w.t.Errorf("%d files for %d", len(entries), len(want))
	}
}

// checkLater wants the store to be of use: a new point, and one deleted.
func (w *shadow) checkLater() {
	w.t.Helper()
	if err := w.later(); err != nil {
		w.t.Error(err)
		return
	}
	w.checkAll()
	if err := w.scrub(); err != nil {
		w.t.Error(err)
	}
	w.checkNothingLeaks()
}

func (w *shadow) later() error {
	steps := []func() error{
		func() error { return w.ensure(shadowDisks...) },
		func() error { return w.write("vda", 4, 90, 91) },
		func() error { return w.zero("vdb", 1022, 1) },
		func() error { return w.complete(w.s.Draft().Seq) },
	}
	if ids := w.ids(); len(ids) > 0 && w.s.views[1].Disks == nil && w.s.views[4].Disks == nil {
		steps = append(steps, func() error { return w.remove(ids[0]) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("afterwards: %w", err)
		}
	}
	return nil
}

// replaceDisk ends the fault, and what belongs to the life that it ended.
func (w *shadow) replaceDisk() {
	w.t.Helper()
	d := w.d
	if d != nil && !w.disk.crashed() {
		_ = d.Abandon()
	}
	if err := w.close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
	if w.disk.crashed() {
		w.disk.lose()
	}
	w.disk = newFaultyDisk(w.t, diskFault{}, 0)
}

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
func memoryDir(t *testing.T) string {
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

// checkWhatIsLeft opens the store on a sound disk.
func (w *shadow) checkWhatIsLeft() {
	w.t.Helper()
	w.replaceDisk()
	if err := w.open(); err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.checkAll()
	w.checkNothingLeaks()
	w.settle()
	w.checkLater()
	if err := errors.Join(w.close(), os.RemoveAll(w.dir)); err != nil {
		w.t.Error(err)
	}
}
