package recoverystore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	summaryEvery = 2 // so that chunks of few versions have some
	goleak.VerifyTestMain(m)
}

// clusterOf is the content that a tag stands for; tag 0 is zeros.
func clusterOf(tag uint32, n int) []byte {
	b := make([]byte, n)
	if tag == 0 {
		return b
	}
	for i := 0; i+8 <= n; i += 512 {
		binary.LittleEndian.PutUint32(b[i:], tag)
		binary.LittleEndian.PutUint32(b[i+4:], uint32(i))
	}
	b[n-1] = byte(tag)
	return b
}

// modelDisk is what a disk holds: cluster to tag, absent means zero.
type modelDisk map[uint64]uint32

type modelState map[string]modelDisk

func (m modelState) clone() modelState {
	out := modelState{}
	for name, d := range m {
		out[name] = maps.Clone(d)
	}
	return out
}

var errCrash = errors.New("crash")

// unsyncedFile remembers what was not made durable, so that a crash can lose it.
type unsyncedFile struct {
	dataFile
	unsynced []extent // bytes
}

func (f *unsyncedFile) WriteAt(p []byte, off int64) (int, error) {
	f.unsynced = append(f.unsynced, extent{uint64(off), uint64(len(p))})
	return f.dataFile.WriteAt(p, off)
}

func (f *unsyncedFile) Datasync() error { f.unsynced = nil; return nil }

// machine runs the store beside a plain model of it.
type machine struct {
	dir    string
	s      *Store
	d      *Draft
	files  []*unsyncedFile
	armed  Failpoint
	skip   int
	tag    uint32
	points map[PointID]modelState
	pinned map[PointID]bool
	latest modelState // with what is pending
	saved  modelState // as of the last commit
	cover  Coverage
}

var modelDisks = []DiskSpec{{"vda", 2100*ClusterSize - 512}, {"vdb", 9000 * ClusterSize}}

func newMachine(t *rapid.T, dir string) *machine {
	m := &machine{dir: dir, points: map[PointID]modelState{}, pinned: map[PointID]bool{}}
	m.saved = modelState{"vda": {}, "vdb": {}}
	m.latest = m.saved.clone()
	m.open(t)
	if err := m.s.EnsureDisks(context.Background(), modelDisks); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) open(t rapid.TB) {
	m.files = nil
	s, err := Open(context.Background(), m.dir, Options{
		noIndexSync: true, ReserveBytes: -1,
		Faults: func(p Failpoint) error {
			if p != m.armed {
				return nil
			}
			if m.skip--; m.skip >= 0 {
				return nil
			}
			return errCrash
		},
		wrapFile: func(f dataFile) dataFile {
			u := &unsyncedFile{dataFile: f}
			m.files = append(m.files, u)
			return u
		},
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	m.s = s
}

// crash loses a part of what was not durable, and opens the store again.
func (m *machine) crash(t *rapid.T) {
	for _, f := range m.files {
		for _, e := range f.unsynced {
			if rapid.Bool().Draw(t, "lost") {
				if _, err := f.dataFile.WriteAt(bytes.Repeat([]byte{0xEE}, int(e.count)), int64(e.start)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	m.armed = ""
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	m.d = nil
	m.latest = m.saved.clone()
	m.open(t)
}

// survived handles the error of a step. It returns true if the step took effect; committedAt names
// the failpoints behind which it has.
func (m *machine) survived(t *rapid.T, err error, committedAt ...Failpoint) (done, crashed bool) {
	switch {
	case err == nil:
		return true, false
	case errors.Is(err, errCrash):
		return slices.Contains(committedAt, m.armed), true
	}
	t.Fatal(err)
	return false, false
}

func (m *machine) draft(t *rapid.T) *Draft {
	if m.d == nil {
		d, err := m.s.Begin()
		if err != nil {
			t.Fatal(err)
		}
		m.d = d
	}
	return m.d
}

func drawRange(t *rapid.T) (DiskSpec, uint64, uint64) {
	spec := rapid.SampledFrom(modelDisks).Draw(t, "disk")
	clusters := uint64(spec.SizeBytes+ClusterSize-1) / ClusterSize
	// A few hot places: overlaps are what can go wrong.
	base := rapid.SampledFrom([]uint64{1020, clusters - 6}).Draw(t, "base")
	first := min(base+rapid.Uint64Range(0, 5).Draw(t, "first"), clusters-1)
	count := min(rapid.Uint64Range(1, 8).Draw(t, "count"), clusters-first)
	return spec, first, count
}

func (m *machine) write(t *rapid.T) {
	d := m.draft(t)
	spec, first, count := drawRange(t)
	end := min(int64(first+count)*ClusterSize, spec.SizeBytes)
	var data []byte
	next := m.latest.clone()
	for c := first; c < first+count; c++ {
		m.tag++
		data = append(data, clusterOf(m.tag, int(min(ClusterSize, end-int64(c)*ClusterSize)))...)
		next[spec.Name][c] = m.tag
	}
	err := d.WriteClusters(spec.Name, first, data, nil)
	if _, crashed := m.survived(t, err); crashed {
		m.crash(t)
		return
	}
	m.latest = next
}

func (m *machine) zero(t *rapid.T) {
	d := m.draft(t)
	spec, first, count := drawRange(t)
	if rapid.IntRange(0, 5).Draw(t, "wide") == 0 {
		first, count = 0, uint64(spec.SizeBytes+ClusterSize-1)/ClusterSize
	}
	if err := d.WriteZeros(spec.Name, first, count); err != nil {
		t.Fatal(err)
	}
	for c := first; c < first+count; c++ {
		delete(m.latest[spec.Name], c)
	}
}

// cycle writes and commits several times over, which is where versions meet.
func (m *machine) cycle(t *rapid.T) {
	for range rapid.IntRange(1, 4).Draw(t, "steps") {
		rapid.SampledFrom([]func(*rapid.T){m.write, m.write, m.zero}).Draw(t, "change")(t)
		rapid.SampledFrom([]func(*rapid.T){m.write, m.zero, m.progress, m.progress, m.complete}).Draw(t, "next")(t)
		m.checkIndex(t)
	}
}

func (m *machine) progress(t *rapid.T) {
	d := m.draft(t)
	cover := Coverage{Checkpoint: fmt.Sprint("c", m.tag), Through: map[string]uint64{"vda": uint64(m.tag % 2000)}}
	done, crashed := m.survived(t, d.SaveProgress(context.Background(), cover), FailAfterIndex)
	if done {
		m.saved, m.cover = m.latest.clone(), cover
	}
	if crashed {
		m.crash(t)
	}
}

func (m *machine) complete(t *rapid.T) {
	if len(m.points) >= 7 {
		m.remove(t)
		return
	}
	d := m.draft(t)
	id := pointID(m.s.Draft().Seq)
	meta := PointMeta{Checkpoint: string(id), ServerXML: "<domain/>" + string(id[len(id)-1]), Attachments: map[string][]byte{"vars": {1, 2, 3}}}
	_, err := d.Complete(context.Background(), meta)
	done, crashed := m.survived(t, err, FailAfterIndex)
	if done {
		m.d = nil
		m.points[id] = m.latest.clone()
		m.saved = m.latest.clone()
		m.cover = Coverage{Checkpoint: string(id), Through: map[string]uint64{"vda": 2100, "vdb": 9000}}
	}
	if crashed {
		m.crash(t)
	}
}

func (m *machine) remove(t *rapid.T) {
	ids := slices.Sorted(maps.Keys(m.points))
	if len(ids) == 0 {
		return
	}
	chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, 4, rapid.ID[PointID]).Draw(t, "points")
	all := rapid.IntRange(0, 9).Draw(t, "all") == 0
	var want error
	for _, id := range chosen {
		if m.pinned[id] && want == nil {
			want = ErrPointInUse
		}
	}
	if slices.Contains(chosen, ids[len(ids)-1]) {
		want = ErrNewestPoint
	}
	var err error
	if all {
		chosen, want = ids, nil
		if len(m.pinned) > 0 {
			want = ErrPointInUse
		}
		err = m.s.DeleteAll(context.Background())
	} else {
		err = m.s.Delete(context.Background(), chosen...)
	}
	if want != nil {
		if !errors.Is(err, want) {
			t.Fatalf("delete: %v, want %v", err, want)
		}
		return
	}
	done, crashed := m.survived(t, err, FailDeleteMarked, FailDeleteBatch)
	if done {
		for _, id := range chosen {
			delete(m.points, id)
		}
	}
	if crashed {
		m.crash(t)
	}
}

func (m *machine) view(t *rapid.T) {
	ids := slices.Sorted(maps.Keys(m.points))
	if len(ids) == 0 {
		return
	}
	id := rapid.SampledFrom(ids).Draw(t, "point")
	if m.pinned[id] {
		done, crashed := m.survived(t, m.s.CloseView(context.Background(), id), FailViewUnrecorded)
		if done {
			delete(m.pinned, id)
		}
		if crashed {
			m.crash(t)
		}
		return
	}
	_, err := m.s.OpenView(context.Background(), id, ViewOptions{})
	done, crashed := m.survived(t, err)
	if done {
		m.pinned[id] = true
	}
	if crashed {
		m.crash(t)
	}
}

func (m *machine) arm(t *rapid.T) {
	m.armed = rapid.SampledFrom([]Failpoint{
		FailDataWritten, FailBeforeSync, FailBeforeIndex, FailInIndex, FailAfterIndex,
		FailDeleteMarked, FailDeleteBatch, FailViewWritten, FailViewUnrecorded,
	}).Draw(t, "failpoint")
	m.skip = rapid.IntRange(0, 2).Draw(t, "skip")
}

func (m *machine) abandon(t *rapid.T) {
	if m.d == nil {
		return
	}
	if err := m.d.Abandon(); err != nil {
		t.Fatal(err)
	}
	m.d = nil
	m.latest = m.saved.clone()
}

func (m *machine) discard(t *rapid.T) {
	m.abandon(t)
	if err := m.s.DiscardDraft(context.Background()); err != nil {
		t.Fatal(err)
	}
	m.cover = Coverage{}
	m.saved = modelState{"vda": {}, "vdb": {}}
	if ids := slices.Sorted(maps.Keys(m.points)); len(ids) > 0 {
		m.saved = m.points[ids[len(ids)-1]].clone()
	}
	m.latest = m.saved.clone()
}

func TestEveryPointReadsBackWhatItWasTakenOf(t *testing.T) {
	root := t.TempDir()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		dir := fmt.Sprintf("%s/%d", root, run)
		m := newMachine(t, dir)
		defer func() {
			_ = m.s.Close()
			_ = os.RemoveAll(dir)
		}()
		t.Repeat(map[string]func(*rapid.T){
			"write": m.write, "cycle": m.cycle, "cycle again": m.cycle, "zero": m.zero, "progress": m.progress,
			"complete": m.complete, "complete again": m.complete, "delete": m.remove, "view": m.view,
			"abandon": m.abandon, "discard": m.discard, "arm": m.arm, "crash": m.crash,
			"check": m.check, "": m.checkIndex,
		})
		m.check(t)
	})
}
