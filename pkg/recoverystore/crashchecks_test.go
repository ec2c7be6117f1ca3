package recoverystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

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
	if d != nil && !w.disk.Crashed() {
		_ = d.Abandon()
	}
	if err := w.close(); err != nil {
		w.t.Errorf("close: %v", err)
	}
	if w.disk.Crashed() {
		w.disk.LosePower()
	}
	w.disk = faultydisk.New(w.t, faultydisk.Fault{}, 0)
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
