package recoverystore

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// WriteZeros makes clusters read as zero. It is cheap where they already do: nothing is recorded, and
// ranges that no point ever wrote are skipped as a whole. Errors: ErrNoDisk, ErrOutOfRange.
func (d *Draft) WriteZeros(disk string, first, count uint64) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.s.leave()
	to, err := d.s.activeDisk(disk)
	if err != nil {
		return err
	}
	if count > to.clusters() || first > to.clusters()-count {
		return fmt.Errorf("%w: zeros at clusters %d to %d of disk %s, which has %d", ErrOutOfRange, first, first+count, disk, to.clusters())
	}
	if count == 0 {
		return nil
	}
	z := zeroing{d: d, disk: to.ID, first: first, end: first + count, freed: diskExtents{}}
	defer func() { d.s.release(z.freed) }()
	if err := d.s.idx.view(z.written); err != nil {
		return fmt.Errorf("zero clusters of disk %s: %w", disk, err)
	}
	z.pendingOnly()
	return nil
}

// zeroing is one WriteZeros under way.
type zeroing struct {
	d          *Draft
	disk       uint32
	first, end uint64 // clusters
	freed      diskExtents
	seen       map[uint32]bool
}

// written handles the chunks that the index knows.
func (z *zeroing) written(tx *bbolt.Tx) error {
	z.seen = map[uint32]bool{}
	chunks := chunksOf(tx)
	at := chunkKey{z.disk, uint32(z.first / ChunkClusters)}
	var c cells
	for {
		k, ok := chunks.nextChunk(at)
		if !ok || uint64(k.chunk)*ChunkClusters >= z.end {
			return nil
		}
		c.reset()
		err := chunks.resolve(&c, k, maxSeq, false)
		if errors.Is(err, ErrCorruptIndex) {
			c.assumeData()
		} else if err != nil {
			return err
		}
		z.zeroChunk(k, &c)
		z.seen[k.chunk] = true
		at.chunk = k.chunk + 1
	}
}

// pendingOnly handles the chunks that only this draft knows.
func (z *zeroing) pendingOnly() {
	for k := range z.d.pending {
		if k.disk == z.disk && !z.seen[k.chunk] {
			z.zeroChunk(k, &cells{})
		}
	}
}

// zeroChunk lays zero runs over what is not zero; c holds what the index has.
func (z *zeroing) zeroChunk(k chunkKey, c *cells) {
	z.d.s.mu.Lock()
	defer z.d.s.mu.Unlock()
	if e := z.d.pending[k]; e != nil {
		c.lay(*e, nil)
	}
	base := uint64(k.chunk) * ChunkClusters
	from, to := max(z.first, base), min(z.end, base+ChunkClusters)
	if from >= to {
		return
	}
	unsure := z.d.s.damage.latest[k]
	var runs []run
	for i := int(from - base); i < int(to-base); i++ {
		if c.cell[i].state == cellData || unsure != nil && unsure.has(i) {
			runs = appendRun(runs, run{first: i, count: 1, zero: true})
		}
	}
	for _, r := range runs {
		z.d.lay(k, r, nil, z.freed)
	}
}
