package recoverystore

import (
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// summariesEvery has one in so many versions get a summary while a test runs.
func summariesEvery(t *testing.T, every uint64) {
	t.Helper()
	before := summaryEvery
	summaryEvery = every
	t.Cleanup(func() { summaryEvery = before })
}

func summaries(t *testing.T, s *Store) (count int) {
	t.Helper()
	err := s.idx.view(func(tx *bbolt.Tx) error {
		count = tx.Bucket(bucketSummaries).Stats().KeyN
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

func TestAViewReadsNoVersionsBelowASummary(t *testing.T) {
	summariesEvery(t, 1)
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	takePoint(t, s, "vda", 0, 1, 2, 3)
	takePoint(t, s, "vda", 1, 4)
	newest := takePoint(t, s, "vda", 2, 5)
	if n := summaries(t, s); n != 2 {
		t.Errorf("%d summaries, want one for each version above the oldest", n)
	}
	spoil := func(bucket []byte, seq uint64) {
		t.Helper()
		err := s.idx.update(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucket).Put(entryKey(chunkKey{1, 0}, seq), []byte("no record"))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	spoil(bucketLocs, 1)
	mustRead(t, s, newest, modelDisk{0: 1, 1: 4, 2: 5})
	spoil(bucketSummaries, 3) // that of the version before serves
	mustRead(t, s, newest, modelDisk{0: 1, 1: 4, 2: 5})
}

// A program that knows no summaries writes to the index without keeping them right.
func TestSummariesAreDroppedWhenSomethingElseHasWritten(t *testing.T) {
	summariesEvery(t, 1)
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	takePoint(t, s, "vda", 0, 1)
	newest := takePoint(t, s, "vda", 1, 2)
	reopen := func() {
		t.Helper()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, s.dir, Options{})
	}
	reopen()
	if n := summaries(t, s); n != 1 {
		t.Fatalf("%d summaries after it was opened again, want 1", n)
	}
	foreign := func(tx *bbolt.Tx) error {
		key := entryKey(chunkKey{1, 0}, 2)
		runs, err := decodeRuns(nil, key, slices.Clone(tx.Bucket(bucketLocs).Get(key)))
		if err != nil {
			return err
		}
		runs[0].first = 3 // as if it had been written there
		return tx.Bucket(bucketLocs).Put(key, encodeRuns(key, runs))
	}
	if err := s.idx.db.Update(foreign); err != nil {
		t.Fatal(err)
	}
	reopen()
	if n := summaries(t, s); n != 0 {
		t.Errorf("%d summaries are left", n)
	}
	mustRead(t, s, newest, modelDisk{0: 1, 3: 2})
}
