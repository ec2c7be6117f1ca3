package recoverystore

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"
)

// summaryEvery is how many versions of a chunk there are, on average, for one with a summary. A test makes it small.
var summaryEvery uint64 = 16

// keyWritten in meta says who wrote last; see written.
var keyWritten = []byte("written")

// A summary says where all of a chunk's clusters lie as of a seq, so that a view need not go back through all versions. It is derived
// from locs, stands under the key of a version, and holds as long as that version does: a deletion merges neighbouring versions
// under the key of the newest of them and so changes nothing of what the chunk holds as of that. It is never needed: one that is unreadable
// is passed over, and all are dropped when anything else may have written to the index.
//
// Which versions have one is decided by their keys, so that only these are looked for when a version goes.
func summarised(key []byte) bool { return xxh3.Hash(key)%summaryEvery == 0 }

// summarise makes the summary of a version that has just been written, if it is one to have it and another lies below it.
func (s chunkStore) summarise(k chunkKey, seq uint64) error {
	key := entryKey(k, seq)
	if !summarised(key) {
		return nil
	}
	var c cells
	older, err := s.fillAsOf(&c, k, seq)
	if err != nil && !errors.Is(err, ErrCorruptIndex) {
		return err
	}
	if err != nil || !older {
		return s.summaries.Delete(key)
	}
	return s.summaries.Put(key, encodeRuns(key, c.entry().runs))
}

// fillAsOf fills c with what the chunk holds as of seq, without checksums. older tells whether more than one version was met.
func (s chunkStore) fillAsOf(c *cells, k chunkKey, seq uint64) (older bool, err error) {
	summary, from := s.summary(k, seq-1)
	cur := s.locs.Cursor()
	met := 0
	for key, v := seekLast(cur, entryKey(k, seq)); key != nil && c.set < ChunkClusters; key, v = cur.Prev() {
		at, born, ok := parseEntryKey(key)
		if !ok || at != k || born <= from {
			break
		}
		runs, err := decodeRuns(nil, key, v)
		if err != nil {
			return false, err
		}
		c.fill(entry{runs: runs})
		met++
	}
	if from > 0 && c.set < ChunkClusters {
		runs, err := parseRuns(nil, entryKey(k, from), summary)
		if err != nil {
			return false, err
		}
		c.fill(entry{runs: runs})
	}
	return met > 1 || from > 0, nil
}

// summary is the newest of a chunk that a point of that seq sees, as encoded runs, and the seq that it is of; 0 when there is none.
func (s chunkStore) summary(k chunkKey, seq uint64) (runs []byte, of uint64) {
	cur := s.summaries.Cursor()
	for key, v := seekLast(cur, entryKey(k, seq)); key != nil; key, v = cur.Prev() {
		at, of, ok := parseEntryKey(key)
		if !ok || at != k {
			break
		}
		if runs, err := unseal(key, v); err == nil {
			return runs, of
		}
	}
	return nil, 0
}

// written is the value of keyWritten after a transaction of that number by a program that keeps summaries right: those of one version
// in summaryEvery.
func written(tx int) []byte { return append(uintValue(uint64(tx)), uintValue(summaryEvery)...) }

// prepareSummaries makes the bucket, and empties it when the last transaction was of a program that does not know it.
func prepareSummaries(tx *bbolt.Tx, last int) error {
	if tx.Bucket(bucketSummaries) != nil && bytes.Equal(tx.Bucket(bucketMeta).Get(keyWritten), written(last)) {
		return nil
	}
	return dropSummaries(tx)
}

func dropSummaries(tx *bbolt.Tx) error {
	if tx.Bucket(bucketSummaries) != nil {
		if err := tx.DeleteBucket(bucketSummaries); err != nil {
			return err
		}
	}
	if _, err := tx.CreateBucket(bucketSummaries); err != nil {
		return fmt.Errorf("%w: make bucket %s: %w", ErrCorruptIndex, bucketSummaries, err)
	}
	return nil
}
