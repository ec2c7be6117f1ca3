package recoverystore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/umbra-dr/umbra/pkg/boltfile"
)

// Buckets of the index.
var (
	bucketMeta   = []byte("meta")
	bucketPoints = []byte("points")
	bucketBlobs  = []byte("blobs")
	bucketDraft  = []byte("draft")
	bucketLocs   = []byte("locs")
	bucketSums   = []byte("sums")
	bucketBirths = []byte("births")
	bucketFree   = []byte("free")
	bucketDamage = []byte("damage")
	bucketViews  = []byte("views")
	bucketTails  = []byte("tails")
	// bucketSummaries is not among those that must be there: an earlier program does not make it.
	bucketSummaries = []byte("summaries")

	buckets = [][]byte{
		bucketMeta, bucketPoints, bucketBlobs, bucketDraft, bucketLocs, bucketSums,
		bucketBirths, bucketFree, bucketDamage, bucketViews, bucketTails,
	}
)

// Keys in meta and draft.
var (
	keyFormat = []byte("format")
	keyDisks  = []byte("disks")
	keySeq    = []byte("seq")
	keyScrub  = []byte("scrub")
	keyDraft  = []byte("draft")
	// keyCorrupt is there once a corrupt record was found in locs or sums.
	keyCorrupt = []byte("corrupt")
)

const (
	indexFileName = "index.db"
	indexFileMode = 0o640
	// indexMapBytes of address space are reserved at once: growing the map would have to wait for readers.
	indexMapBytes = 1 << 30
	// indexFill packs pages, since records are mostly added in order.
	indexFill = 0.9
)

// index is the database; what is wrong with the file is an ErrCorruptIndex.
type index struct{ db *boltfile.DB }

func openIndex(ctx context.Context, dir string, opts Options) (*index, error) {
	db, err := boltfile.Open(ctx, filepath.Join(dir, indexFileName), indexFileMode, bbolt.Options{
		Timeout:         opts.LockTimeout,
		InitialMmapSize: indexMapBytes,
		FreelistType:    bbolt.FreelistMapType,
		NoSync:          opts.noIndexSync,
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, ErrLocked
	case err != nil:
		return nil, fmt.Errorf("open recovery store index: %w", corruptIndex(err))
	}
	if opts.wrapIndex != nil {
		opts.wrapIndex(db.Bolt())
	}
	return &index{db}, nil
}

func corruptIndex(err error) error {
	if errors.Is(err, boltfile.ErrCorrupt) {
		return fmt.Errorf("%w: %w", ErrCorruptIndex, err)
	}
	return err
}

func (x *index) view(fn func(tx *bbolt.Tx) error) error { return corruptIndex(x.db.View(fn)) }

func (x *index) update(fn func(tx *bbolt.Tx) error) error {
	return corruptIndex(x.db.Update(func(tx *bbolt.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyWritten, written(tx.ID()))
	}))
}

// shows says whether a transaction whose commit failed is there for readers: on disk it may be or not.
func (x *index) shows(id int) bool {
	newest := id
	_ = x.view(func(tx *bbolt.Tx) error {
		newest = tx.ID()
		return nil
	})
	return newest >= id
}

// prepare makes the buckets of a new index, and checks that an old one has them all and is of a format that is known.
func (x *index) prepare() error {
	return x.update(func(tx *bbolt.Tx) error {
		last := tx.ID() - 1
		if meta := tx.Bucket(bucketMeta); meta != nil {
			if err := checkFormat(meta); err != nil {
				return err
			}
			if err := errors.Join(checkBuckets(tx), prepareSummaries(tx, last)); err != nil || !x.db.Behind() {
				return err
			}
			return fallBack(tx)
		}
		if key, _ := tx.Cursor().First(); key != nil {
			return fmt.Errorf("%w: no bucket %s", ErrCorruptIndex, bucketMeta)
		}
		for _, name := range buckets {
			if _, err := tx.CreateBucket(name); err != nil {
				return fmt.Errorf("make bucket %s: %w", name, err)
			}
		}
		if err := dropSummaries(tx); err != nil {
			return err
		}
		if err := tx.Bucket(bucketMeta).Put(keySeq, uintValue(1)); err != nil {
			return err
		}
		return tx.Bucket(bucketMeta).Put(keyFormat, uintValue(FormatVersion))
	})
}

// fallBack makes the best of an index whose last transaction is missing: what the main host was told to be stored may not be. So the
// disks are compared again, and the scrub begins anew.
func fallBack(tx *bbolt.Tx) error {
	var draft draftRecord
	if found, err := getRecord(tx.Bucket(bucketDraft), keyDraft, &draft); errors.Is(err, ErrCorruptIndex) || !found {
		return nil // no coverage either
	} else if err != nil {
		return err
	}
	draft.Coverage = Coverage{}
	return errors.Join(putRecord(tx.Bucket(bucketDraft), keyDraft, draft), tx.Bucket(bucketMeta).Delete(keyScrub))
}

func checkBuckets(tx *bbolt.Tx) error {
	for _, name := range buckets {
		if tx.Bucket(name) == nil {
			return fmt.Errorf("%w: no bucket %s", ErrCorruptIndex, name)
		}
	}
	return nil
}

func checkFormat(meta *bbolt.Bucket) error {
	v := meta.Get(keyFormat)
	if len(v) != 8 {
		return fmt.Errorf("%w: no format version", ErrCorruptIndex)
	}
	if version := binary.BigEndian.Uint64(v); version != FormatVersion {
		return fmt.Errorf("%w: version %d, this program knows %d", ErrFormat, version, FormatVersion)
	}
	return nil
}

// putRecord stores a sealed JSON record.
func putRecord(b *bbolt.Bucket, key []byte, record any) error {
	raw, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode record %q: %w", key, err)
	}
	return b.Put(key, seal(key, raw))
}

// getRecord reads what putRecord stored; found is false when there is none.
func getRecord(b *bbolt.Bucket, key []byte, record any) (found bool, err error) {
	v := b.Get(key)
	if v == nil {
		return false, nil
	}
	return true, decodeRecord(key, v, record)
}

func decodeRecord(key, value []byte, record any) error {
	raw, err := unseal(key, value)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, record); err != nil {
		return fmt.Errorf("%w: record %q: %w", ErrCorruptIndex, key, err)
	}
	return nil
}

// chunkStore reads and writes the versions of chunks inside one transaction.
type chunkStore struct {
	locs, sums, births, summaries *bbolt.Bucket
}

func chunksOf(tx *bbolt.Tx) chunkStore {
	s := chunkStore{tx.Bucket(bucketLocs), tx.Bucket(bucketSums), tx.Bucket(bucketBirths), tx.Bucket(bucketSummaries)}
	s.locs.FillPercent, s.sums.FillPercent, s.births.FillPercent = indexFill, indexFill, indexFill
	return s
}

func (s chunkStore) put(k chunkKey, seq uint64, e entry) error {
	key := entryKey(k, seq)
	if err := s.locs.Put(key, encodeRuns(key, e.runs)); err != nil {
		return err
	}
	if len(e.sums) == 0 {
		if err := s.sums.Delete(key); err != nil {
			return err
		}
	} else if err := s.sums.Put(key, encodeSums(key, e.sums)); err != nil {
		return err
	}
	return s.births.Put(birthKey(seq, k), nil)
}

func (s chunkStore) delete(k chunkKey, seq uint64) error {
	key := entryKey(k, seq)
	if summarised(key) {
		if err := s.summaries.Delete(key); err != nil {
			return err
		}
	}
	return errors.Join(s.locs.Delete(key), s.sums.Delete(key), s.births.Delete(birthKey(seq, k)))
}

// version is one entry with the seq it was born at.
type version struct {
	seq uint64
	entry
}

// versions returns what was born in a chunk in (after, through], oldest first, checksums included.
func (s chunkStore) versions(k chunkKey, after, through uint64) ([]version, error) {
	var out []version
	c := s.locs.Cursor()
	for key, v := c.Seek(entryKey(k, after+1)); key != nil; key, v = c.Next() {
		at, seq, ok := parseEntryKey(key)
		if !ok {
			return nil, fmt.Errorf("%w: key %x", ErrCorruptIndex, key)
		}
		if at != k || seq > through {
			break
		}
		e, err := s.decode(key, v)
		if err != nil {
			return nil, err
		}
		out = append(out, version{seq, e})
	}
	return out, nil
}

func (s chunkStore) decode(key, value []byte) (entry, error) {
	runs, err := decodeRuns(nil, key, value)
	if err != nil {
		return entry{}, err
	}
	e := entry{runs: runs}
	e.sums, err = decodeSums(key, s.sums.Get(key), e.dataClusters())
	return e, err
}

// passBytesMax is how many bytes of keys and values a pass reads before it gives their pages back.
const passBytesMax = 16 << 20

// pass is the reading of much of the index at once. It lets go of the pages that it has read, so that the process does not grow by
// the size of the index.
type pass struct {
	tx   *bbolt.Tx
	read int // bytes since pages were given back
}

// saw notes what was read.
func (p *pass) saw(key, value []byte) error {
	if p.read += len(key) + len(value); p.read < passBytesMax {
		return nil
	}
	p.read = 0
	return boltfile.GiveBack(p.tx)
}

// resolve fills c with what the chunk holds as of seq. Checksums are left out unless asked for.
func (s chunkStore) resolve(c *cells, k chunkKey, seq uint64, withSums bool) error {
	cur := s.locs.Cursor()
	key, v := seekLast(cur, entryKey(k, seq))
	var runs []run
	for ; key != nil && c.set < ChunkClusters; key, v = cur.Prev() {
		at, _, ok := parseEntryKey(key)
		if !ok {
			return fmt.Errorf("%w: key %x", ErrCorruptIndex, key)
		}
		if at != k {
			break
		}
		e := entry{}
		var err error
		if withSums {
			e, err = s.decode(key, v)
		} else {
			runs, err = decodeRuns(runs[:0], key, v)
			e.runs = runs
		}
		if err != nil {
			return err
		}
		c.fill(e)
	}
	return nil
}

// seekLast moves the cursor to the last key that is not behind want.
func seekLast(c *bbolt.Cursor, want []byte) (key, value []byte) {
	key, value = c.Seek(want)
	switch {
	case key == nil:
		return c.Last()
	case string(key) == string(want):
		return key, value
	}
	return c.Prev()
}

// nextChunk returns the first chunk of the disk, from chunk on, that has any version.
func (s chunkStore) nextChunk(k chunkKey) (chunkKey, bool) {
	key, _ := s.locs.Cursor().Seek(entryKey(k, 0))
	at, _, ok := parseEntryKey(key)
	return at, ok && at.disk == k.disk
}
