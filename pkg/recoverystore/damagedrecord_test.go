package recoverystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/qcow2"
)

// alter changes a record of the closed store's index as a flipped bit does, below all checks. It returns what it needs to be undone.
func alter(t *testing.T, w *shadow, bucket, key []byte, change func(b *bbolt.Bucket, key, value []byte) error) {
	t.Helper()
	w.altered = true
	idx, err := openIndex(t.Context(), w.dir, Options{noIndexSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = idx.update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		return change(b, key, slices.Clone(b.Get(key)))
	})
	if err := errors.Join(err, idx.db.Close()); err != nil {
		t.Fatal(err)
	}
}

func flipValue(bit int) func(b *bbolt.Bucket, key, value []byte) error {
	return func(b *bbolt.Bucket, key, value []byte) error {
		bit %= len(value) * 8
		value[bit/8] ^= 1 << (bit % 8)
		return b.Put(key, value)
	}
}

func flipKey(bit int) func(b *bbolt.Bucket, key, value []byte) error {
	return func(b *bbolt.Bucket, key, value []byte) error {
		other := slices.Clone(key)
		other[bit/8] ^= 1 << (bit % 8)
		return errors.Join(b.Delete(key), b.Put(other, value))
	}
}

// someBits are bits of a record: of its braces, its names, its numbers, its checksum.
var someBits = []int{77, 2222, 501}

func (w *shadow) mustOpen() {
	w.t.Helper()
	if err := w.open(); err != nil {
		w.t.Fatalf("open: %v", err)
	}
}

// checkDamaged wants every point to be listed, these as damaged and no other, and those that are not to be right.
func (w *shadow) checkDamaged(damaged ...PointID) {
	w.t.Helper()
	var listed []PointID
	for _, p := range w.s.Points() {
		listed = append(listed, p.ID)
		if p.Damaged != slices.Contains(damaged, p.ID) {
			w.t.Errorf("point %s: damaged is %v", p.ID, p.Damaged)
		}
		if p.Damaged {
			_, errForced := w.s.OpenView(w.t.Context(), p.ID, ViewOptions{AllowDamaged: true})
			_, errVerify := w.s.Verify(w.t.Context(), p.ID, VerifyOptions{})
			if _, err := w.s.Point(p.ID); !errors.Is(err, ErrDamaged) || !errors.Is(errForced, ErrDamaged) || !errors.Is(errVerify, ErrDamaged) {
				w.t.Errorf("point %s: %v; %v; %v", p.ID, err, errForced, errVerify)
			}
			if p.CreateTime.After(p.CompleteTime) || p.CompleteTime.IsZero() {
				w.t.Errorf("point %s was made at %v", p.ID, p.CompleteTime)
			}
			continue
		}
		w.checkPoint(p.ID, w.points[p.ID])
	}
	if !slices.Equal(listed, w.ids()) {
		w.t.Errorf("points %v, want %v", listed, w.ids())
	}
}

func TestAnUnreadableRecordOfAPointCostsThatPointAlone(t *testing.T) {
	for n, id := range lived(t).ids() {
		t.Run(string(id), func(t *testing.T) {
			w := lived(t)
			seq, _ := id.Seq()
			alter(t, w, bucketPoints, uintValue(seq), flipValue(someBits[n]))
			for range 2 {
				w.mustOpen()
				w.checkDamaged(id)
				w.checkLatest()
				if err := w.close(); err != nil {
					t.Fatal(err)
				}
			}
			w.mustOpen()
			// It can be deleted, and leaves nothing.
			if err := errors.Join(w.complete(w.s.Draft().Seq), w.s.CloseView(t.Context(), pointID(4)), w.remove(id)); err != nil {
				t.Fatal(err)
			}
			w.checkWhatIsLeft()
		})
	}
}

func TestADeletedPointLeavesNoBlobsThoughItsRecordIsUnreadable(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	for _, xml := range []string{"<a/>", "<b/>"} {
		if _, err := begin(t, s).Complete(t.Context(), PointMeta{ServerXML: xml}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	alter(t, &shadow{dir: s.dir}, bucketPoints, uintValue(1), flipValue(9))
	s = openTest(t, s.dir, Options{})
	if err := s.Delete(t.Context(), pointID(1)); err != nil {
		t.Fatal(err)
	}
	err := s.idx.view(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(bucketBlobs).Stats().KeyN; n != 1 {
			t.Errorf("%d blobs are left", n)
		}
		return nil
	})
	if p, pointErr := s.Point(pointID(2)); err != nil || pointErr != nil || p.ServerXML != "<b/>" {
		t.Errorf("the point that stays: %+v, %v, %v", p, err, pointErr)
	}
}

func TestAnUnreadableDraftCountsAsNoCoverage(t *testing.T) {
	for _, bit := range someBits[:2] {
		t.Run(fmt.Sprint(bit), func(t *testing.T) {
			w := lived(t)
			alter(t, w, bucketDraft, keyDraft, flipValue(bit))
			w.mustOpen()
			if got := w.s.Draft(); got.Coverage.Checkpoint != "" || len(got.Coverage.Through) != 0 || got.Seq != 5 {
				t.Errorf("draft %+v", got)
			}
			w.checkWhatIsLeft()
		})
	}
}

// Of the two states that bbolt keeps the newer one is lost. It had the progress of the draft.
func TestAnIndexThatFallsBackByATransactionHasTheDisksCompared(t *testing.T) {
	w := lived(t)
	w.altered = true
	flipNewestState(t, filepath.Join(w.dir, indexFileName), 1<<3)
	for range 2 {
		w.mustOpen()
		if got := w.s.Draft(); got.Coverage.Checkpoint != "" || len(got.Coverage.Through) != 0 || got.Seq != 5 {
			t.Errorf("draft %+v", got)
		}
		w.checkPoints()
		w.checkNothingLeaks()
		if err := errors.Join(w.s.fsck(), w.close()); err != nil {
			t.Fatal(err)
		}
	}
}

// flipNewestState flips bits of the number of bbolt's newest transaction.
func flipNewestState(t *testing.T, path string, flip uint64) {
	t.Helper()
	index, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const numberAt = 16 + 48 // after the page's header
	var number uint64
	var at int64
	var raw [8]byte
	for _, page := range []int64{0, int64(os.Getpagesize())} {
		if _, err := index.ReadAt(raw[:], page+numberAt); err != nil {
			t.Fatal(err)
		}
		if n := binary.NativeEndian.Uint64(raw[:]); n > number {
			number, at = n, page+numberAt
		}
	}
	binary.NativeEndian.PutUint64(raw[:], number^flip)
	_, err = index.WriteAt(raw[:], at)
	if err := errors.Join(err, index.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestTheDraftsNumberDoesNotHangOnOneBit(t *testing.T) {
	for _, bit := range []int{0, 40} {
		w := lived(t)
		alter(t, w, bucketMeta, keySeq, flipValue(bit))
		w.mustOpen()
		if got := w.s.Draft().Seq; got != 5 {
			t.Errorf("bit %d: the draft is number %d", bit, got)
		}
		w.checkWhatIsLeft()
	}
}

func TestASlotThatAnUnreadableViewMayHaveIsNotTouchedUntilTheViewIsClosed(t *testing.T) {
	for _, bit := range someBits[:2] {
		t.Run(fmt.Sprint(bit), func(t *testing.T) {
			w := lived(t)
			w.mustOpen()
			slot := w.s.views[4].Slot
			at, size := w.s.disks[1].slotOffset(slot), int64(w.s.disks[1].SlotClusters)*ClusterSize
			path := w.s.disks[1].path
			if err := w.close(); err != nil {
				t.Fatal(err)
			}
			before := readPart(t, path, at, size)
			alter(t, w, bucketViews, uintValue(4), flipValue(bit))
			w.mustOpen()
			if _, err := w.s.OpenView(t.Context(), pointID(4), ViewOptions{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("the view was opened: %v", err)
			}
			if err := w.s.Delete(t.Context(), pointID(4)); !errors.Is(err, ErrNewestPoint) && !errors.Is(err, ErrPointInUse) {
				t.Errorf("its point was deleted: %v", err)
			}
			for _, id := range []PointID{pointID(1), pointID(3)} { // they take other slots
				w.checkPoint(id, w.points[id])
			}
			if after := readPart(t, path, at, size); string(before) != string(after) {
				t.Error("the slot was touched")
			}
			if err := w.s.CloseView(t.Context(), pointID(4)); err != nil {
				t.Fatal(err)
			}
			w.checkAll()
			w.checkWhatIsLeft()
		})
	}
}

func readPart(t *testing.T, path string, at, size int64) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, size)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestARecordWhoseKeyHasChangedGoesBackToItsPlace(t *testing.T) {
	for _, bucket := range [][]byte{bucketPoints, bucketViews} {
		for _, bit := range []int{3, 56} {
			t.Run(fmt.Sprintf("%s %d", bucket, bit), func(t *testing.T) {
				w := lived(t)
				alter(t, w, bucket, uintValue(4), flipKey(bit))
				w.mustOpen()
				w.checkDamaged()
				if w.s.views[4].Disks == nil {
					t.Error("the view is lost")
				}
				w.checkWhatIsLeft()
			})
		}
	}
}

func TestDamagedTablesOfAnOpenViewAreWrittenAnew(t *testing.T) {
	for name, mend := range map[string]func(*Store, PointID) error{
		"when it is opened again": func(s *Store, id PointID) error {
			_, err := s.OpenView(t.Context(), id, ViewOptions{})
			return err
		},
		"by the scrub": func(s *Store, _ PointID) error {
			_, err := s.Scrub(t.Context(), 1)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Options{}, DiskSpec{"vda", 10 << 30})
			id := takePoint(t, s, "vda", 3, 1, 2, 3)
			v, err := s.OpenView(t.Context(), id, ViewOptions{})
			if err != nil {
				t.Fatal(err)
			}
			layout, err := qcow2.Plan(10 << 30)
			if err != nil {
				t.Fatal(err)
			}
			slot := s.disks[1].slotOffset(s.views[1].Slot)
			whole := readPart(t, s.disks[1].path, slot, int64(layout.Size))
			for _, at := range []uint64{4, layout.L1Offset + 7, layout.L2At(0) + 3*8 + 5, layout.L2At(0) + 9*8} {
				if _, err := s.disks[1].file.WriteAt([]byte{whole[at] ^ 4}, slot+int64(at)); err != nil {
					t.Fatal(err)
				}
				if err := mend(s, id); err != nil {
					t.Fatal(err)
				}
				if string(whole) != string(readPart(t, s.disks[1].path, slot, int64(layout.Size))) {
					t.Errorf("byte %d stays damaged", at)
				}
				if _, err := s.Scrub(t.Context(), 1<<30); err != nil { // to the end: the next one begins anew
					t.Fatal(err)
				}
			}
			if err := compareView(v.Disks[0], modelDisk{3: 1, 4: 2, 5: 3}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Tables made now would lack what the record said.
func TestAnOpenViewKeepsWhatTheIndexCanNoLongerTell(t *testing.T) {
	w := lived(t)
	alter(t, w, bucketLocs, entryKey(chunkKey{1, 0}, 1), flipValue(9))
	w.mustOpen()
	if _, err := w.s.Scrub(t.Context(), 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := w.view(pointID(4)); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
}
