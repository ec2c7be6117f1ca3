package recoverystore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func openTest(t testing.TB, dir string, opts Options) *Store {
	t.Helper()
	opts.ReserveBytes = -1
	s, err := Open(context.Background(), dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func newTestStore(t testing.TB, opts Options, disks ...DiskSpec) *Store {
	t.Helper()
	s := openTest(t, filepath.Join(t.TempDir(), "store"), opts)
	if err := s.EnsureDisks(t.Context(), disks); err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t testing.TB, s *Store) *Draft {
	t.Helper()
	d, err := s.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// writeTags writes one cluster for each tag.
func writeTags(t testing.TB, d *Draft, disk string, first uint64, tags ...uint32) {
	t.Helper()
	var data []byte
	for _, tag := range tags {
		data = append(data, clusterOf(tag, ClusterSize)...)
	}
	if err := d.WriteClusters(disk, first, data, nil); err != nil {
		t.Fatal(err)
	}
}

func complete(t testing.TB, d *Draft) PointID {
	t.Helper()
	p, err := d.Complete(t.Context(), PointMeta{Consistency: CrashConsistent})
	if err != nil {
		t.Fatal(err)
	}
	return p.ID
}

func takePoint(t testing.TB, s *Store, disk string, first uint64, tags ...uint32) PointID {
	t.Helper()
	d := begin(t, s)
	writeTags(t, d, disk, first, tags...)
	return complete(t, d)
}

func mustRead(t testing.TB, s *Store, id PointID, want ...modelDisk) {
	t.Helper()
	v, err := s.OpenView(t.Context(), id, ViewOptions{AllowDamaged: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range v.Disks {
		if err := compareView(d, want[i]); err != nil {
			t.Fatalf("point %s disk %s: %v", id, d.Name, err)
		}
	}
	if err := s.CloseView(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestQEMUReadsAPointThroughItsView(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	const size = 1200<<20 - 512 // three L2 tables, a short last cluster
	last := uint64(size / ClusterSize)
	s := newTestStore(t, Options{}, DiskSpec{"vda", size})
	points := []map[uint64]uint32{
		{0: 1, 1: 2, 1023: 3, 1024: 4, 8191: 5, 8192: 6},
		{1: 20, 5000: 21, 16384: 22},
		{0: 30, 8192: 31},
	}
	state := modelDisk{}
	var ids []PointID
	var raws []string
	for i, changes := range points {
		d := begin(t, s)
		for c, tag := range changes {
			writeTags(t, d, "vda", c, tag)
			state[c] = tag
		}
		if i == 1 {
			if err := d.WriteClusters("vda", last, clusterOf(99, ClusterSize-512), nil); err != nil {
				t.Fatal(err)
			}
			state[last] = 99
		}
		if i == 2 {
			if err := d.WriteZeros("vda", 1, 4000); err != nil {
				t.Fatal(err)
			}
			delete(state, 1)
			delete(state, 1023)
			delete(state, 1024)
		}
		ids = append(ids, complete(t, d))
		raws = append(raws, writeRaw(t, size, state))
	}
	compare := func(i int) {
		t.Helper()
		v, err := s.OpenView(t.Context(), ids[i], ViewOptions{})
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), tool, "compare", v.Disks[0].QEMUImage(), "-F", "raw", raws[i]).CombinedOutput()
		if err != nil {
			t.Fatalf("point %d: %v\n%s", i, err, out)
		}
		if err := s.CloseView(t.Context(), ids[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range ids {
		compare(i)
	}
	if err := s.Delete(t.Context(), ids[1]); err != nil {
		t.Fatal(err)
	}
	compare(0)
	compare(2)
}

func writeRaw(t *testing.T, size int64, state modelDisk) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for c, tag := range state {
		off := int64(c) * ClusterSize
		if _, err := f.WriteAt(clusterOf(tag, int(min(ClusterSize, size-off))), off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestDeletedPointsGiveTheirBlocksBack(t *testing.T) {
	const clusters = 512
	s := newTestStore(t, Options{}, DiskSpec{"vda", clusters * ClusterSize})
	tags := func(base uint32) []uint32 {
		out := make([]uint32, clusters)
		for i := range out {
			out[i] = base + uint32(i)
		}
		return out
	}
	var ids []PointID
	for i := range uint32(6) {
		ids = append(ids, takePoint(t, s, "vda", 0, tags(1+i*1000)...))
	}
	blocks := func() int64 {
		u, err := s.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.AllocatedBytes
	}
	const live, fixed = clusters * ClusterSize, 1 << 20
	if got := blocks(); got < 6*live {
		t.Fatalf("six full points take %d bytes", got)
	}
	if err := s.Delete(t.Context(), ids[:5]...); err != nil {
		t.Fatal(err)
	}
	if got := blocks(); got > live*105/100+fixed {
		t.Fatalf("one full point takes %d bytes, %d are live", got, live)
	}
	// And the space is used again before the file grows.
	before := s.disks[1].space.tail
	for i := range uint32(5) {
		takePoint(t, s, "vda", 0, tags(10000+i*1000)...)
	}
	if after := s.disks[1].space.tail; after != before {
		t.Fatalf("file grew from %d to %d clusters with enough free space in it", before, after)
	}
}

func TestDeletingTheOldestPointCostsOnlyItsOwnChanges(t *testing.T) {
	const chunks = 64
	s := newTestStore(t, Options{}, DiskSpec{"vda", chunks * ChunkClusters * ClusterSize})
	d := begin(t, s)
	for c := range uint64(chunks) {
		writeTags(t, d, "vda", c*ChunkClusters, uint32(c+1))
	}
	oldest := complete(t, d)
	takePoint(t, s, "vda", 5*ChunkClusters, 1000)
	if err := s.markDeleting(func() ([]*pointRecord, error) { p, err := s.livePoint(oldest); return []*pointRecord{p}, err }); err != nil {
		t.Fatal(err)
	}
	g, _ := s.nextGroup()
	touched, err := s.sharedChunks(g)
	if err != nil {
		t.Fatal(err)
	}
	if len(touched) > 2 {
		t.Fatalf("deletion looks at %d chunks, one was changed since", len(touched))
	}
	if err := s.finishDeletions(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.fsck(); err != nil {
		t.Fatal(err)
	}
}

func TestPointsThatMustStayAreNotDeleted(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	a, b, c := takePoint(t, s, "vda", 0, 1), takePoint(t, s, "vda", 0, 2), takePoint(t, s, "vda", 0, 3)
	if _, err := s.OpenView(t.Context(), b, ViewOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, try := range []struct {
		ids  []PointID
		want error
	}{{[]PointID{a, c}, ErrNewestPoint}, {[]PointID{a, b}, ErrPointInUse}, {[]PointID{a, "rp-000000000077"}, ErrNoPoint}, {[]PointID{"x"}, ErrNoPoint}} {
		var point *PointError
		if err := s.Delete(t.Context(), try.ids...); !errors.Is(err, try.want) || !errors.As(err, &point) {
			t.Errorf("delete %v: %v, want %v", try.ids, err, try.want)
		}
	}
	if n := len(s.Points()); n != 3 {
		t.Fatalf("%d points are left of 3", n)
	}
	mustRead(t, s, a, modelDisk{0: 1})
}

func TestOnlyOneProcessOpensAStore(t *testing.T) {
	s := newTestStore(t, Options{})
	_, err := Open(t.Context(), s.dir, Options{LockTimeout: time.Millisecond})
	if !errors.Is(err, ErrLocked) {
		t.Fatalf("second open: %v", err)
	}
	if err := Remove(s.dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("remove of an open store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(); !errors.Is(err, ErrClosed) {
		t.Fatalf("begin on a closed store: %v", err)
	}
	if err := Remove(s.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("store is still there: %v", err)
	}
}

func TestAFullStoreKeepsItsPointsAndGoesOnAfterADeletion(t *testing.T) {
	s := newTestStore(t, Options{BytesMax: 4 * ClusterSize}, DiskSpec{"vda", 1 << 20})
	a := takePoint(t, s, "vda", 0, 1, 2)
	b := takePoint(t, s, "vda", 0, 3)
	d := begin(t, s)
	if err := d.WriteClusters("vda", 0, bytes.Repeat([]byte{1}, 2*ClusterSize), nil); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("write past the limit: %v", err)
	}
	mustRead(t, s, a, modelDisk{0: 1, 1: 2})
	mustRead(t, s, b, modelDisk{0: 3, 1: 2})
	if err := s.Delete(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	writeTags(t, d, "vda", 0, 5, 6)
	mustRead(t, s, complete(t, d), modelDisk{0: 5, 1: 6})
	mustRead(t, s, b, modelDisk{0: 3, 1: 2})
}

func TestTheReserveOfTheFileSystemStaysFree(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	s.opts.ReserveBytes = 1 << 60
	d := begin(t, s)
	if err := d.WriteClusters("vda", 0, make([]byte, ClusterSize), nil); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("write into the reserve: %v", err)
	}
}

func TestDisksComeGoAndGrow(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	a := takePoint(t, s, "vda", 0, 1)
	if got := s.Draft().Coverage.Through["vda"]; got != 16 {
		t.Fatalf("coverage after a point is %d clusters of 16", got)
	}
	ensure := func(specs ...DiskSpec) error { return s.EnsureDisks(t.Context(), specs) }
	var size *DiskSizeError
	if err := ensure(DiskSpec{"vda", 1 << 19}); !errors.As(err, &size) || !errors.Is(err, ErrDiskSizeChanged) {
		t.Fatalf("shrink: %v", err)
	}
	if err := ensure(DiskSpec{"vda", 1 << 45}); !errors.Is(err, ErrDiskSizeChanged) {
		t.Fatalf("growth past the view slots: %v", err)
	}
	if err := ensure(DiskSpec{"vda", 2<<20 + 512}, DiskSpec{"vdb", 1 << 20}); err != nil {
		t.Fatal(err)
	}
	d := begin(t, s)
	if err := ensure(DiskSpec{"vda", 4 << 20}); !errors.Is(err, ErrDraftOpen) {
		t.Fatalf("change under a draft: %v", err)
	}
	writeTags(t, d, "vda", 30, 2)
	writeTags(t, d, "vdb", 3, 3)
	b := complete(t, d)
	if err := ensure(DiskSpec{"vda", 4 << 20}); !errors.Is(err, ErrDiskSizeChanged) {
		t.Fatalf("growth of an odd size: %v", err)
	}
	if err := ensure(DiskSpec{"vdb", 1 << 20}); err != nil {
		t.Fatal(err)
	}
	c := takePoint(t, s, "vdb", 4, 4)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, s.dir, Options{})
	mustRead(t, s, a, modelDisk{0: 1})
	mustRead(t, s, b, modelDisk{0: 1, 30: 2}, modelDisk{3: 3})
	mustRead(t, s, c, modelDisk{3: 3, 4: 4})
	if err := begin(t, s).WriteZeros("vda", 0, 1); !errors.Is(err, ErrNoDisk) {
		t.Fatalf("write to a disk that went: %v", err)
	}
}

func TestADiskGoesWithTheLastPointThatHasIt(t *testing.T) {
	vda, vdb := DiskSpec{"vda", 1 << 20}, DiskSpec{"vdb", 1 << 20}
	s := newTestStore(t, Options{}, vda, vdb)
	a := takePoint(t, s, "vdb", 0, 1, 2)
	if err := s.EnsureDisks(t.Context(), []DiskSpec{vda}); err != nil {
		t.Fatal(err)
	}
	b := takePoint(t, s, "vda", 0, 3)
	mustRead(t, s, a, modelDisk{}, modelDisk{0: 1, 1: 2})
	if err := s.Delete(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.dir, "vdb.store")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("data file of the disk is still there: %v", err)
	}
	if err := s.fsck(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A file that a crash left behind is not taken for the new disk's.
	if err := os.WriteFile(filepath.Join(s.dir, "vdb.store"), bytes.Repeat([]byte{7}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, s.dir, Options{})
	if err := s.EnsureDisks(t.Context(), []DiskSpec{vda, {"vdb", 1 << 19}}); err != nil {
		t.Fatal(err)
	}
	c := takePoint(t, s, "vdb", 1, 4)
	mustRead(t, s, b, modelDisk{0: 3})
	mustRead(t, s, c, modelDisk{0: 3}, modelDisk{1: 4})
}

func TestACoverageOutlivesACrashAndIsForgottenOnRequest(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	d := begin(t, s)
	writeTags(t, d, "vda", 0, 1, 2)
	want := Coverage{Checkpoint: "cp1", Through: map[string]uint64{"vda": 2}}
	if err := d.SaveProgress(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if err := d.SaveProgress(t.Context(), Coverage{Through: map[string]uint64{"vda": 17}}); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("coverage past the end: %v", err)
	}
	writeTags(t, d, "vda", 2, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, s.dir, Options{})
	state := s.Draft()
	if state.Coverage.Checkpoint != "cp1" || state.Coverage.Through["vda"] != 2 || state.SavedBytes != 2*ClusterSize || state.Seq != 1 {
		t.Fatalf("draft after reopening: %+v", state)
	}
	d = begin(t, s)
	if _, err := s.Begin(); !errors.Is(err, ErrDraftOpen) {
		t.Fatalf("second draft: %v", err)
	}
	if err := s.ResetCoverage(t.Context()); !errors.Is(err, ErrDraftOpen) {
		t.Fatalf("reset under a draft: %v", err)
	}
	if err := d.Abandon(); err != nil {
		t.Fatal(err)
	}
	if err := s.ResetCoverage(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := s.Draft().Coverage; c.Checkpoint != "" || len(c.Through) != 0 {
		t.Fatalf("coverage after the reset: %+v", c)
	}
	sums := make([]Checksum, 3)
	if err := s.Checksums(t.Context(), "vda", 0, sums, FromData); err != nil || sums[1].State != ChecksumData || sums[2].State != ChecksumZero {
		t.Fatalf("what was saved is gone: %+v, %v", sums, err)
	}
}

func TestWritesOutsideTheDiskAreRefused(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 10*ClusterSize + 512})
	d := begin(t, s)
	for _, try := range []struct {
		first uint64
		bytes int
	}{{11, ClusterSize}, {10, ClusterSize}, {0, 512}, {9, ClusterSize + 1}, {1 << 63, ClusterSize}} {
		if err := d.WriteClusters("vda", try.first, make([]byte, try.bytes), nil); !errors.Is(err, ErrOutOfRange) {
			t.Errorf("%d bytes at cluster %d: %v", try.bytes, try.first, err)
		}
	}
	if err := d.WriteZeros("vda", 1, 1<<63); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("zeros: %v", err)
	}
	if err := d.WriteClusters("vda", 9, make([]byte, ClusterSize+512), nil); err != nil {
		t.Errorf("write up to the end: %v", err)
	}
}

func TestZerosOverNothingLeaveNoTrace(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 40})
	takePoint(t, s, "vda", 7, 1)
	d := begin(t, s)
	if err := d.WriteZeros("vda", 8, 1<<24-8); err != nil {
		t.Fatal(err)
	}
	if n := d.Pending(); n != 0 {
		t.Fatalf("%d clusters are pending after zeroing what was zero", n)
	}
	p, err := d.Complete(t.Context(), PointMeta{})
	if err != nil || p.ChangedBytes != 0 {
		t.Fatalf("point %+v, %v", p, err)
	}
}

func TestAViewSurvivesReopening(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	a := takePoint(t, s, "vda", 0, 1)
	takePoint(t, s, "vda", 0, 2)
	v, err := s.OpenView(t.Context(), a, ViewOptions{})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, s.dir, Options{})
	if views := s.Views(); len(views) != 1 || views[0].Disks[0] != v.Disks[0] {
		t.Fatalf("views %+v, want %+v", views, v)
	}
	if err := compareView(v.Disks[0], modelDisk{0: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), a); !errors.Is(err, ErrPointInUse) {
		t.Fatalf("delete of a viewed point: %v", err)
	}
}

func TestViewSlotsAreBounded(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	var last PointID
	for i := range uint32(viewSlots + 1) {
		last = takePoint(t, s, "vda", 0, i+1)
		_, err := s.OpenView(t.Context(), last, ViewOptions{})
		if i < viewSlots && err != nil || i == viewSlots && !errors.Is(err, ErrNoViewSlot) {
			t.Fatalf("view %d: %v", i, err)
		}
	}
	if err := s.CloseView(t.Context(), s.Points()[4].ID); err != nil {
		t.Fatal(err)
	}
	mustRead(t, s, last, modelDisk{0: viewSlots + 1})
}
