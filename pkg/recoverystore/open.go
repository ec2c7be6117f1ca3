package recoverystore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

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
	if err := indexIsThere(dir); err != nil {
		return nil, err
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

// indexIsThere refuses a directory of data files without an index: a new index would know none of them, and they would be removed, under
// a server that may run on one of them. The index is made before any data file; what is left of a removal is for Remove.
func indexIsThere(dir string) error {
	_, err := os.Stat(filepath.Join(dir, indexFileName))
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	files, err := dataFiles(dir)
	if err != nil {
		return err
	}
	if len(files) > 0 {
		return fmt.Errorf("%w: %s is gone, and %d data files are there", ErrCorruptIndex, indexFileName, len(files))
	}
	return nil
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
	var a *audit
	var recs []diskRecord
	err := s.idx.view(func(tx *bbolt.Tx) (err error) {
		if _, err = getRecord(tx.Bucket(bucketMeta), keyDisks, &recs); err != nil {
			return err
		}
		moved, err := s.loadRecords(tx)
		if err != nil {
			return err
		}
		if a, err = newAudit(tx, recs); err != nil {
			return err
		}
		for _, m := range moved {
			a.fix(m.putBack)
		}
		s.seq = max(s.seq, a.seq)
		a.findSpace(tx, recs, s.fileClusters(recs), s.needs)
		return a.dropDamageMarks(tx)
	})
	if err == nil {
		err = s.repair(a)
	}
	if err != nil {
		return err
	}
	for _, rec := range recs {
		if err := s.loadDisk(rec, a.space[rec.ID]); err != nil {
			return err
		}
	}
	s.findDoubtfulSlots()
	for _, d := range s.disks {
		if err := s.giveBack(d, a.space[d.ID].free); err != nil {
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

// fileClusters returns how long the disks' files are; 0 for one that is not there.
func (s *Store) fileClusters(recs []diskRecord) map[uint32]uint64 {
	out := map[uint32]uint64{}
	for _, rec := range recs {
		if st, err := os.Stat(filepath.Join(s.dir, rec.Name+dataFileSuffix)); err == nil {
			out[rec.ID] = uint64(st.Size()) / ClusterSize
		}
	}
	return out
}

// loadDisk opens a disk.
func (s *Store) loadDisk(rec diskRecord, space diskSpace) error {
	d, err := s.openDisk(rec, space.tail, false)
	if err != nil {
		return err
	}
	s.disks[rec.ID] = d
	if rec.Active {
		s.active = append(s.active, d)
	}
	for _, e := range space.free {
		d.space.release(e)
	}
	return nil
}

// giveBack gives back the blocks of everything the index does not refer to: free extents, what lies behind the tail, and
// view slots without a view.
func (s *Store) giveBack(d *disk, free []extent) error {
	unused := slices.Clone(free)
	for slot := range d.Slots {
		if !s.slotTaken(slot) {
			unused = append(unused, extent{uint64(slot) * d.SlotClusters, d.SlotClusters})
		}
	}
	if err := d.punch(joined(unused)); err != nil {
		return err
	}
	size, err := d.file.Size()
	if end := int64(d.committedTail) * ClusterSize; err == nil && size > end {
		err = d.file.Truncate(end)
	}
	if err != nil {
		return fmt.Errorf("cut data file of disk %s: %w", d.Name, err)
	}
	return nil
}
