package recoverystore

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// keysOf returns the keys of a bucket of the closed store.
func keysOf(t *testing.T, w *shadow, bucket []byte) (keys [][]byte) {
	t.Helper()
	idx, err := openIndex(t.Context(), w.dir, Options{noIndexSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = idx.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, _ []byte) error {
			keys = append(keys, slices.Clone(k))
			return nil
		})
	})
	if err := errors.Join(err, idx.db.Close()); err != nil {
		t.Fatal(err)
	}
	if len(keys) == 0 {
		t.Fatalf("there is nothing in %s", bucket)
	}
	return keys
}

// What is free has no checksum, and needs none: data in use is never given away, whatever the lists say.
func TestDataInUseIsNeverFreeWhateverTheListsSay(t *testing.T) {
	w := lived(t)
	type altered struct {
		bucket, key []byte
		how         func(*bbolt.Bucket, []byte, []byte) error
	}
	var list []altered
	for _, bucket := range [][]byte{bucketFree, bucketTails} {
		for _, key := range keysOf(t, w, bucket) {
			for _, bit := range []int{0, 24, 61, 63} { // of a big-endian number: enormous, larger, smaller, zero
				list = append(list, altered{bucket, key, flipValue(bit)})
			}
			for _, bit := range []int{0, 30, len(key)*8 - 1} {
				list = append(list, altered{bucket, key, flipKey(bit)})
			}
		}
	}
	for n, a := range list {
		if n > 0 {
			w = lived(t)
		}
		alter(t, w, a.bucket, a.key, a.how)
		w.checkWhatIsLeft()
		if t.Failed() {
			t.Fatalf("%s, key %x, alteration %d", a.bucket, a.key, n)
		}
	}
}

// A version's key, or its mirror, with a flipped bit costs nothing: the one that is left says what it was.
func TestAVersionWhoseKeyHasChangedGoesBackToItsPlace(t *testing.T) {
	for _, bucket := range [][]byte{bucketLocs, bucketBirths} {
		for _, bit := range []int{0, 31, 33, 63, 70, 127} {
			w := lived(t)
			keys := keysOf(t, w, bucket)
			alter(t, w, bucket, keys[bit%len(keys)], flipKey(bit))
			w.checkWhatIsLeft()
			if t.Failed() {
				t.Fatalf("%s, bit %d of key %x", bucket, bit, keys[bit%len(keys)])
			}
		}
	}
}

// Of a version that is gone, or cannot be read, the points that see it are damaged from Open on, and its data is not touched.
func TestAPointThatMissesAVersionIsDamaged(t *testing.T) {
	remove := func(b *bbolt.Bucket, key, _ []byte) error { return b.Delete(key) }
	for name, how := range map[string]func(*bbolt.Bucket, []byte, []byte) error{"unreadable": flipValue(5), "gone": remove} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
			a := takePoint(t, s, "vda", 0, 1, 2)
			b := takePoint(t, s, "vda", 0, 3)
			c := takePoint(t, s, "vda", 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
			if err := s.Delete(t.Context(), b); err != nil { // there is something free
				t.Fatal(err)
			}
			at := int64(s.disks[1].dataStart()) * ClusterSize
			path := s.disks[1].path
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			before := readPart(t, path, at, 2*ClusterSize)
			alter(t, &shadow{dir: s.dir}, bucketLocs, entryKey(chunkKey{1, 0}, 1), how)
			s = openTest(t, s.dir, Options{})
			if got := damagedPoints(s); !slices.Equal(got, []PointID{a}) {
				t.Errorf("damaged points %v", got)
			}
			if _, err := s.OpenView(t.Context(), a, ViewOptions{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("view: %v", err)
			}
			takePoint(t, s, "vda", 3, 20, 21, 22, 23)
			if name == "unreadable" && !bytes.Equal(before, readPart(t, path, at, 2*ClusterSize)) {
				t.Error("what it refers to was given away")
			}
			mustRead(t, s, c, modelDisk{0: 4, 1: 5, 2: 6, 3: 7, 4: 8, 5: 9, 6: 10, 7: 11, 8: 12, 9: 13, 10: 14, 11: 15, 12: 16, 13: 17, 14: 18, 15: 19})
		})
	}
}

func TestAClusterSetHoldsWhatWasPutIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, want := newClusterSet(), map[uint64]bool{}
		const span = 3 * pageClusters
		for range rapid.IntRange(0, 20).Draw(t, "extents") {
			e := extent{rapid.Uint64Range(0, span-1).Draw(t, "start"), rapid.Uint64Range(1, 200).Draw(t, "count")}
			s.add(e)
			for at := e.start; at < e.end(); at++ {
				want[at] = true
			}
		}
		from := rapid.Uint64Range(0, span).Draw(t, "from")
		to := rapid.Uint64Range(from, span+300).Draw(t, "to")
		free := map[uint64]bool{}
		last := from
		for i, e := range s.holes(from, to) {
			if e.count == 0 || e.start < last || i > 0 && e.start == last {
				t.Fatalf("hole %v behind %d", e, last)
			}
			last = e.end()
			for at := e.start; at < e.end(); at++ {
				free[at] = true
			}
		}
		for at := from; at < to; at++ {
			if free[at] == want[at] {
				t.Fatalf("place %d: in the set %v, free %v", at, want[at], free[at])
			}
		}
		if want[s.end] || len(want) > 0 && !want[s.end-1] {
			t.Fatalf("the end is %d", s.end)
		}
	})
}
