package recoverystore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/clock"
)

// Open opens the store in dir, makes it when the directory is empty or missing, and finishes what a
// crash interrupted. Errors: ErrLocked, ErrFormat, ErrCorruptIndex.
func Open(ctx context.Context, dir string, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	// QEMU, as whatever user, has to get through the directory. What is in it is guarded by its own modes.
	if err := os.MkdirAll(dir, 0o751); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("make recovery store directory: %w", err)
	}
	idx, err := openIndex(ctx, dir, opts)
	if err != nil {
		return nil, err
	}
	s := &Store{
		dir: dir, opts: opts, log: opts.Logger, idx: idx,
		disks: map[uint32]*disk{}, views: map[uint64]viewRecord{}, opening: map[uint64]int{},
	}
	if err := s.load(ctx); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = clock.System.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = DefaultReserveBytes
	}
	if o.LockTimeout == 0 {
		o.LockTimeout = DefaultLockTimeout
	}
	return o
}

func (s *Store) load(ctx context.Context) error {
	if err := s.idx.prepare(); err != nil {
		return err
	}
	var free diskExtents
	var recs []diskRecord
	tails := map[uint32]uint64{}
	err := s.idx.view(func(tx *bbolt.Tx) (err error) {
		if free, err = (extentSet{tx.Bucket(bucketFree)}).all(); err != nil {
			return err
		}
		if _, err = getRecord(tx.Bucket(bucketMeta), keyDisks, &recs); err != nil {
			return err
		}
		for _, rec := range recs {
			if tails[rec.ID], err = getTail(tx, rec); err != nil {
				return err
			}
		}
		return s.loadRecords(tx)
	})
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if err := s.loadDisk(rec, tails[rec.ID], free[rec.ID]); err != nil {
			return err
		}
	}
	if err := s.removeStrayFiles(); err != nil {
		return err
	}
	if err := s.loadDamage(); err != nil {
		return err
	}
	if err := s.finishDeletions(ctx); errors.Is(err, ErrCorruptIndex) {
		// The points concerned stay hidden; the others are none the worse.
		s.log.Error("unfinished deletion cannot be finished", "error", err)
	} else if err != nil {
		return err
	}
	return nil
}

func (s *Store) loadRecords(tx *bbolt.Tx) error {
	seq := tx.Bucket(bucketMeta).Get(keySeq)
	if len(seq) != 8 {
		return fmt.Errorf("%w: no sequence number", ErrCorruptIndex)
	}
	s.seq = binary.BigEndian.Uint64(seq)
	if _, err := getRecord(tx.Bucket(bucketDraft), keyDraft, &s.draft); err != nil {
		return err
	}
	err := tx.Bucket(bucketPoints).ForEach(func(k, v []byte) error {
		p := &pointRecord{}
		if err := decodeRecord(k, v, p); err != nil {
			return err
		}
		s.points = append(s.points, p)
		return nil
	})
	if err != nil {
		return err
	}
	return tx.Bucket(bucketViews).ForEach(func(k, v []byte) error {
		var r viewRecord
		if err := decodeRecord(k, v, &r); err != nil {
			return err
		}
		s.views[binary.BigEndian.Uint64(k)] = r
		return nil
	})
}

// loadDisk opens a disk, and gives back the blocks of everything the index does not refer to: free
// extents, what lies behind the tail, and view slots without a view.
func (s *Store) loadDisk(rec diskRecord, tail uint64, free []extent) error {
	d, err := s.openDisk(rec, tail, false)
	if err != nil {
		return err
	}
	s.disks[rec.ID] = d
	if rec.Active {
		s.active = append(s.active, d)
	}
	for _, e := range free {
		if e.start < rec.dataStart() || e.end() > tail {
			return fmt.Errorf("%w: free extent at cluster %d of disk %s", ErrCorruptIndex, e.start, rec.Name)
		}
		d.space.release(e)
	}
	unused := free
	for slot := range rec.Slots {
		if !s.slotTaken(slot) {
			unused = append(unused, extent{uint64(slot) * rec.SlotClusters, rec.SlotClusters})
		}
	}
	if err := d.punch(joined(unused)); err != nil {
		return err
	}
	size, err := d.file.Size()
	if err == nil && size > int64(tail)*ClusterSize {
		err = d.file.Truncate(int64(tail) * ClusterSize)
	}
	if err != nil {
		return fmt.Errorf("cut data file of disk %s: %w", rec.Name, err)
	}
	return nil
}
