package recoverystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// ChecksumState says what a Checksum knows.
type ChecksumState uint8

const (
	// ChecksumZero: the cluster reads as zero; Sum is not set.
	ChecksumZero ChecksumState = iota
	// ChecksumData: Sum is the checksum of the cluster.
	ChecksumData
	// ChecksumUnknown: what is stored is damaged or unreadable; send the cluster again.
	ChecksumUnknown
)

// Checksum is what the latest state holds in one cluster.
type Checksum struct {
	State ChecksumState
	Sum   Sum
}

// ChecksumSource says where checksums come from.
type ChecksumSource uint8

const (
	// FromIndex takes the checksums that were stored with the data.
	FromIndex ChecksumSource = iota
	// FromData reads and hashes the data; what differs from the index is marked as damage.
	FromData
)

// Checksums fills out with the checksums of len(out) clusters of the latest state, from cluster
// first on, including what the open draft has written. Errors: ErrNoDisk, ErrOutOfRange.
func (s *Store) Checksums(ctx context.Context, disk string, first uint64, out []Checksum, from ChecksumSource) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	d, err := s.activeDisk(disk)
	if err != nil {
		return err
	}
	count := uint64(len(out))
	if count > d.clusters() || first > d.clusters()-count {
		return fmt.Errorf("%w: checksums of clusters %d to %d of disk %s, which has %d", ErrOutOfRange, first, first+count, disk, d.clusters())
	}
	for len(out) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		in := first % ChunkClusters
		n := min(uint64(len(out)), ChunkClusters-in)
		k := chunkKey{d.ID, uint32(first / ChunkClusters)}
		if err := s.chunkChecksums(ctx, d, k, int(in), out[:n], from); err != nil {
			return fmt.Errorf("checksums of disk %s: %w", disk, err)
		}
		first, out = first+n, out[n:]
	}
	return nil
}

// chunkChecksums does the part within one chunk, from cell first on.
func (s *Store) chunkChecksums(ctx context.Context, d *disk, k chunkKey, first int, out []Checksum, from ChecksumSource) error {
	var c cells
	damaged, err := s.latest(&c, k)
	if errors.Is(err, ErrCorruptIndex) {
		for i := range out {
			out[i] = Checksum{State: ChecksumUnknown}
		}
		return nil
	}
	if err != nil {
		return err
	}
	var stored []storedCluster
	for i := range out {
		at := &c.cell[first+i]
		switch {
		case damaged.has(first + i):
			out[i] = Checksum{State: ChecksumUnknown}
		case at.state == cellData:
			out[i] = Checksum{State: ChecksumData, Sum: at.sum}
			stored = append(stored, storedCluster{k, first + i, at.loc, at.sum})
		default:
			out[i] = Checksum{}
		}
	}
	if from == FromIndex {
		return nil
	}
	bad, err := d.suspects(ctx, stored)
	if err != nil {
		return err
	}
	for _, b := range bad {
		out[b.cell-first] = Checksum{State: ChecksumUnknown}
	}
	return s.markDamaged(bad)
}

// latest fills c with the latest state of a chunk. The index and what is pending are looked at in one
// moment under mu: a commit moves content from one to the other, and it is in one of them, or in both.
func (s *Store) latest(c *cells, k chunkKey) (damaged chunkBits, err error) {
	s.mu.Lock()
	unlock := sync.OnceFunc(s.mu.Unlock)
	defer unlock()
	err = s.idx.view(func(tx *bbolt.Tx) error {
		if bits := s.damage.latest[k]; bits != nil {
			damaged = *bits
		}
		var pending entry
		if s.handle != nil {
			if e := s.handle.pending[k]; e != nil {
				pending = entry{slices.Clone(e.runs), slices.Clone(e.sums)}
			}
		}
		unlock()
		if err := chunksOf(tx).resolve(c, k, maxSeq, true); err != nil {
			return err
		}
		c.lay(pending, nil)
		for _, r := range pending.runs {
			for i := r.first; i < r.end(); i++ {
				damaged.clear(i)
			}
		}
		return nil
	})
	return damaged, err
}
