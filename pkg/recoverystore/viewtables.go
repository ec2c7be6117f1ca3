package recoverystore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/qcow2"
)

const (
	// tablesPerWrite is how many L2 tables are gathered for one write: 4 MiB.
	tablesPerWrite = 64
	chunksPerTable = qcow2.EntriesPerL2 / ChunkClusters
)

// writeView writes the tables of one disk into its slot, makes them durable, and returns the length
// of the slice that QEMU needs.
func (s *Store) writeView(ctx context.Context, pd pointDisk, seq uint64, slot int, o ViewOptions) (int64, error) {
	d := s.disk(pd.ID)
	layout, err := qcow2.Plan(uint64(pd.SizeBytes))
	if err != nil {
		return 0, err
	}
	size, err := d.file.Size()
	if err != nil {
		return 0, fmt.Errorf("size of data file of disk %s: %w", d.Name, err)
	}
	w := newTableWriter(ctx, d, layout, seq, slot)
	w.fileClusters, w.lenient = uint64(size)/ClusterSize, o.AllowDamaged
	if err := s.idx.view(w.walk); err != nil {
		return 0, fmt.Errorf("tables of disk %s: %w", d.Name, err)
	}
	if w.lost {
		if err := s.lostWhileOpen(d, w.fileClusters); err != nil {
			return 0, err
		}
		if !o.AllowDamaged {
			return 0, fmt.Errorf("%w: the data file of disk %s lost its end", ErrDamaged, d.Name)
		}
	}
	if err := w.write(layout.Head(w.used), 0); err != nil {
		return 0, err
	}
	if err := d.sync(); err != nil {
		return 0, err
	}
	return int64(max(layout.Size, w.end)), nil
}

func newTableWriter(ctx context.Context, d *disk, layout qcow2.Layout, seq uint64, slot int) *tableWriter {
	return &tableWriter{
		ctx: ctx, disk: d, layout: layout, seq: seq, base: uint64(d.slotOffset(slot)), dataStart: d.dataStart(),
		tables: make([]byte, 0, min(tablesPerWrite, layout.L2Tables)*ClusterSize), used: make([]bool, layout.L2Tables),
	}
}

// restoreTables holds the tables of an open view, which have no checksum, against the point, and writes anew what differs. QEMU may
// be reading them: what is right does not change. What cannot be told, since a record is unreadable, stays. It needs viewMu.
func (s *Store) restoreTables(ctx context.Context, point *pointRecord, rec viewRecord) error {
	for i, vd := range rec.Disks {
		d := s.disk(vd.ID)
		layout, err := qcow2.Plan(uint64(point.Disks[i].SizeBytes))
		if err != nil {
			return err
		}
		w := newTableWriter(ctx, d, layout, point.Seq, rec.Slot)
		w.fileClusters, w.restore = locMax, true
		err = s.idx.view(w.walk)
		if errors.Is(err, ErrCorruptIndex) && s.Stopped() == nil {
			// The tables were made when the record could be read: they are better than what could be made now.
			s.log.Warn("tables of an open view cannot be checked", "disk", d.Name, "point", pointID(point.Seq), "error", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("tables of disk %s: %w", d.Name, err)
		}
		if err := w.write(layout.Head(w.used), 0); err != nil {
			return err
		}
		if !w.restored {
			continue
		}
		s.log.Error("tables of an open view were damaged, and are written anew", "disk", d.Name, "point", pointID(point.Seq))
		if err := d.sync(); err != nil {
			return err
		}
	}
	return nil
}

// restoreViews does so for all views.
func (s *Store) restoreViews(ctx context.Context) error {
	s.viewMu.Lock()
	defer s.viewMu.Unlock()
	s.mu.Lock()
	points, views := slices.Clone(s.points), maps.Clone(s.views)
	s.mu.Unlock()
	for _, p := range points {
		if rec, open := views[p.Seq]; open && !rec.unreadable && !p.unreadable {
			if err := s.restoreTables(ctx, p, rec); err != nil {
				return fmt.Errorf("check view of recovery point %s: %w", pointID(p.Seq), err)
			}
		}
	}
	return nil
}

// lostWhileOpen handles a file that became shorter under us.
func (s *Store) lostWhileOpen(d *disk, fileClusters uint64) error {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	s.mu.Lock()
	lost := fileClusters < d.committedTail
	s.mu.Unlock()
	if !lost {
		return nil
	}
	if err := s.markLostTail(d, fileClusters); err != nil {
		return err
	}
	return s.workOutDamage()
}

// tableWriter turns the index into L2 tables, in one pass in the order of the disk. For each chunk it
// goes from the newest version that the point sees back to older ones, until every cluster is known or a summary says the rest.
type tableWriter struct {
	ctx          context.Context
	disk         *disk
	layout       qcow2.Layout
	seq          uint64
	base         uint64 // bytes: where the view begins in the file
	fileClusters uint64
	dataStart    uint64

	tables  []byte // tables not yet written, one after another
	first   int    // the number of the first of them
	lenient bool   // leave out records that are corrupt
	used    []bool
	// restore: the tables are there; what differs is written, and noted in restored.
	restore, restored bool
	pass              *pass
	chunks            chunkStore
	end               uint64 // bytes from base to behind the last cluster
	lost              bool   // a cluster lies behind the file's end
}

func (w *tableWriter) walk(tx *bbolt.Tx) error {
	chunks := chunksOf(tx)
	last := chunkKey{w.disk.ID, uint32((w.layout.VirtualSize - 1) / ClusterSize / ChunkClusters)}
	w.pass, w.chunks = &pass{tx: tx}, chunks
	cur := chunks.locs.Cursor()
	for at := (chunkKey{w.disk.ID, 0}); ; at.chunk++ {
		key, _ := cur.Seek(entryKey(at, 0))
		k, _, ok := parseEntryKey(key)
		if !ok || k.disk != at.disk || k.chunk > last.chunk {
			return w.flush()
		}
		at = k
		if err := w.chunk(cur, k); err != nil {
			return err
		}
	}
}

// chunk fills the part of a table that one chunk maps.
func (w *tableWriter) chunk(cur *bbolt.Cursor, k chunkKey) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var known chunkBits
	left := ChunkClusters
	var part []byte
	lay := func(key, runs []byte) (err error) {
		if part == nil {
			if part, err = w.part(k.chunk); err != nil {
				return err
			}
		}
		entered, err := w.lay(part, &known, runs)
		left -= entered
		if err != nil {
			return fmt.Errorf("%w: record %x: %w", ErrCorruptIndex, key, err)
		}
		return nil
	}
	summary, of := w.chunks.summary(k, w.seq)
	for key, v := seekLast(cur, entryKey(k, w.seq)); key != nil && left > 0; key, v = cur.Prev() {
		if at, born, ok := parseEntryKey(key); !ok || at != k || born <= of {
			break
		}
		if err := w.pass.saw(key, v); err != nil {
			return err
		}
		runs, err := unseal(key, v)
		if err == nil {
			err = lay(key, runs)
		}
		if err != nil && (!w.lenient || !errors.Is(err, ErrCorruptIndex)) {
			return err
		}
	}
	if left > 0 && of > 0 {
		return lay(entryKey(k, of), summary)
	}
	return nil
}

// part returns the eighth of a table that belongs to the chunk, in a table that is being gathered.
func (w *tableWriter) part(chunk uint32) ([]byte, error) {
	table := int(chunk) / chunksPerTable
	gathered := len(w.tables) / ClusterSize
	if gathered == 0 || table >= w.first+gathered {
		if gathered == tablesPerWrite || gathered > 0 && table != w.first+gathered {
			if err := w.flush(); err != nil {
				return nil, err
			}
		}
		if len(w.tables) == 0 {
			w.first = table
		}
		n := len(w.tables)
		w.tables = w.tables[:n+ClusterSize]
		clear(w.tables[n:])
		w.used[table] = true
	}
	const partBytes = ClusterSize / chunksPerTable
	return w.tables[(table-w.first)*ClusterSize+int(chunk)%chunksPerTable*partBytes:][:partBytes], nil
}

// lay enters the clusters of encoded runs that no newer version has, and returns how many those were. It is what a view's time goes
// into: a disk that is written to at random has as many runs as clusters.
func (w *tableWriter) lay(part []byte, known *chunkBits, runs []byte) (entered int, err error) {
	if len(runs) == 0 || len(runs)%runBytes != 0 {
		return 0, fmt.Errorf("it has %d bytes", len(runs))
	}
	end, last := 0, uint64(0)
	for ; len(runs) > 0; runs = runs[runBytes:] {
		v := binary.LittleEndian.Uint64(runs)
		r, ok := decodeRun(v, end)
		if !ok || !r.zero && r.loc < w.dataStart {
			return entered, fmt.Errorf("impossible run %x", v)
		}
		end = r.end()
		for cluster, loc := r.first, r.loc; cluster < end; cluster, loc = cluster+1, loc+1 {
			word, bit := &known[cluster/64], uint64(1)<<(cluster%64)
			if *word&bit != 0 {
				continue
			}
			*word |= bit
			entered++
			if !r.zero {
				last = max(last, loc+1)
				qcow2.PutL2(part, cluster, loc*ClusterSize-w.base)
			}
		}
	}
	if last > 0 {
		w.lost = w.lost || last > w.fileClusters
		w.end = max(w.end, last*ClusterSize-w.base)
	}
	return entered, nil
}

func (w *tableWriter) flush() error {
	if len(w.tables) == 0 {
		return nil
	}
	err := w.write(w.tables, w.layout.L2At(w.first))
	w.tables = w.tables[:0]
	return err
}

func (w *tableWriter) write(b []byte, at uint64) error {
	if w.restore {
		have := make([]byte, len(b))
		if _, err := w.disk.file.ReadAt(have, int64(w.base+at)); err == nil && bytes.Equal(have, b) {
			return nil
		}
		w.restored = true
	}
	if _, err := w.disk.file.WriteAt(b, int64(w.base+at)); err != nil {
		return noSpaceError(fmt.Errorf("write tables: %w", err))
	}
	return nil
}
