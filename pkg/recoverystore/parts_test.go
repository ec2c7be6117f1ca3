package recoverystore

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

func FuzzRunDecoderRejectsOrRoundTrips(f *testing.F) {
	key := entryKey(chunkKey{1, 2}, 3)
	f.Add(encodeRuns(key, []run{{first: 0, count: 1024, loc: 1}})[:runBytes])
	f.Add(encodeRuns(key, []run{{first: 3, count: 5, zero: true}, {first: 8, count: 1, loc: locMax - 1}})[:2*runBytes])
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := decodeRuns(nil, key, raw); err != nil && !errors.Is(err, ErrCorruptIndex) {
			t.Fatalf("untyped error: %v", err)
		}
		value := seal(key, raw)
		runs, err := decodeRuns(nil, key, value)
		if err != nil {
			if !errors.Is(err, ErrCorruptIndex) {
				t.Fatalf("untyped error: %v", err)
			}
			return
		}
		if again := encodeRuns(key, runs); string(again) != string(value) {
			t.Fatalf("%x decodes to %+v, which encodes to %x", value, runs, again)
		}
		var c cells
		c.lay(entry{runs: runs}, nil)
		if _, err := decodeSums(key, raw, c.set); err != nil && !errors.Is(err, ErrCorruptIndex) {
			t.Fatalf("untyped error: %v", err)
		}
	})
}

func TestARecordUnderAnotherKeyIsNotAccepted(t *testing.T) {
	value := encodeRuns(entryKey(chunkKey{1, 2}, 3), []run{{first: 0, count: 1, loc: 1}})
	if _, err := decodeRuns(nil, entryKey(chunkKey{1, 2}, 4), value); !errors.Is(err, ErrCorruptIndex) {
		t.Fatalf("decode: %v", err)
	}
}

func TestRunsAreEncodedAsTheFormatSays(t *testing.T) {
	got := fmt.Sprintf("%x", encodeRuns(entryKey(chunkKey{1, 2}, 3), []run{{first: 1, count: 2, loc: 0x1234}, {first: 1000, count: 24, zero: true}}))
	const want = "3412000000104000" + "00000000007801fa" + "09289813"
	if got != want {
		t.Fatalf("runs are %s, want %s: this breaks every store there is", got, want)
	}
}

func TestExtentSetsHoldWhatWasPutIn(t *testing.T) {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "x.db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rapid.Check(t, func(t *rapid.T) {
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		b, err := tx.CreateBucket([]byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		set := extentSet{b}
		model := map[uint32]map[uint64]bool{1: {}, 2: {}}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			disk := rapid.Uint32Range(1, 2).Draw(t, "disk")
			e := extent{rapid.Uint64Range(1, 40).Draw(t, "start"), rapid.Uint64Range(1, 6).Draw(t, "count")}
			insert := rapid.Bool().Draw(t, "insert")
			do := set.remove
			if insert {
				do = set.insert
			}
			if err := do(disk, e); err != nil {
				t.Fatal(err)
			}
			for c := e.start; c < e.end(); c++ {
				if delete(model[disk], c); insert {
					model[disk][c] = true
				}
			}
			all, err := set.all()
			if err != nil {
				t.Fatal(err)
			}
			for id := range model {
				checkExtents(t, all[id], model[id])
			}
		}
	})
}

// checkExtents wants exactly the clusters of the model, in order, and neighbours joined.
func checkExtents(t *rapid.T, have []extent, want map[uint64]bool) {
	n := 0
	for i, e := range have {
		if i > 0 && have[i-1].end() >= e.start {
			t.Fatalf("extents %v are not joined", have)
		}
		for c := e.start; c < e.end(); c++ {
			if n++; !want[c] {
				t.Fatalf("cluster %d is in %v", c, have)
			}
		}
	}
	if n != len(want) {
		t.Fatalf("%v has %d clusters, want %d", have, n, len(want))
	}
}

func TestTheAllocatorNeverHandsOutWhatIsInUse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newAllocator(5, 5)
		used := map[uint64]bool{}
		var held []extent
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			if len(held) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				a.release(held[i])
				for c := held[i].start; c < held[i].end(); c++ {
					delete(used, c)
				}
				held = append(held[:i], held[i+1:]...)
			} else {
				want := rapid.Uint64Range(1, 40).Draw(t, "count")
				got := uint64(0)
				for _, e := range a.alloc(want) {
					got += e.count
					held = append(held, e)
					for c := e.start; c < e.end(); c++ {
						if used[c] || c < 5 || c >= a.tail {
							t.Fatalf("cluster %d handed out twice or outside", c)
						}
						used[c] = true
					}
				}
				if got != want {
					t.Fatalf("%d clusters instead of %d", got, want)
				}
			}
			if a.used() != uint64(len(used)) {
				t.Fatalf("allocator counts %d clusters, %d are in use", a.used(), len(used))
			}
		}
		for _, e := range held {
			a.release(e)
		}
		if a.extents() > 1 || a.used() != 0 {
			t.Fatalf("%d extents when all is free", a.extents())
		}
	})
}
