package recoverystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
)

// VerifyOptions bound one call of Verify.
type VerifyOptions struct {
	From     VerifyCursor // where to go on; zero: the beginning
	BytesMax int64        // stop after about this much was read; 0: read everything
}

// VerifyCursor is a place in a point. The zero value is the beginning.
type VerifyCursor struct {
	Disk  int
	Chunk uint32
}

// VerifyReport says what was read and what was wrong.
type VerifyReport struct {
	Clusters int64
	Bad      []DamagedRange // at most DamageListMax
	Next     VerifyCursor   // for VerifyOptions.From; unused by Scrub
	Done     bool           // the end was reached
}

func (r *VerifyReport) add(disk string, bad []storedCluster) {
	for _, c := range bad {
		if len(r.Bad) < DamageListMax {
			r.Bad = appendDamage(r.Bad, disk, c.cluster())
		}
	}
}

// Verify reads a point's data back and compares checksums. Damage is marked, and reported; it is not
// an error of Verify. The point cannot be deleted meanwhile. Errors: ErrNoPoint, ErrCorruptIndex,
// ErrDamaged when the record of the point itself is unreadable.
func (s *Store) Verify(ctx context.Context, id PointID, o VerifyOptions) (VerifyReport, error) {
	if err := s.enter(); err != nil {
		return VerifyReport{}, err
	}
	defer s.leave()
	point, unpin, err := s.pin(id)
	if err != nil {
		return VerifyReport{}, err
	}
	defer unpin()
	if point.unreadable {
		return VerifyReport{}, point.damaged()
	}
	report := VerifyReport{Next: o.From}
	for report.Next.Disk < len(point.Disks) {
		d := s.disk(point.Disks[report.Next.Disk].ID)
		more, err := s.verifyChunk(ctx, d, point.Seq, &report)
		if err != nil {
			return report, fmt.Errorf("verify recovery point %s: %w", id, err)
		}
		if !more {
			report.Next = VerifyCursor{Disk: report.Next.Disk + 1}
		}
		if o.BytesMax > 0 && report.Clusters*ClusterSize >= o.BytesMax {
			break
		}
	}
	report.Done = report.Next.Disk >= len(point.Disks)
	return report, nil
}

// verifyChunk reads the next chunk of a disk; more is false when there is none.
func (s *Store) verifyChunk(ctx context.Context, d *disk, seq uint64, report *VerifyReport) (more bool, err error) {
	var c cells
	var k chunkKey
	err = s.idx.view(func(tx *bbolt.Tx) error {
		chunks := chunksOf(tx)
		if k, more = chunks.nextChunk(chunkKey{d.ID, report.Next.Chunk}); !more {
			return nil
		}
		return chunks.resolve(&c, k, seq, true)
	})
	if err != nil || !more {
		return false, err
	}
	stored := c.stored(k)
	slices.SortFunc(stored, byPlace)
	bad, err := d.suspects(ctx, stored)
	if err != nil {
		return false, err
	}
	report.Next.Chunk = k.chunk + 1
	report.Clusters += int64(len(stored))
	report.add(d.Name, bad)
	return true, s.markDamaged(bad)
}

func byPlace(a, b storedCluster) int {
	if a.loc < b.loc {
		return -1
	}
	return 1
}

// pin keeps a point from being deleted until unpin is called.
func (s *Store) pin(id PointID) (p *pointRecord, unpin func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, err = s.livePoint(id); err != nil {
		return nil, nil, err
	}
	s.opening[p.Seq]++
	return p, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.opening[p.Seq]--; s.opening[p.Seq] == 0 {
			delete(s.opening, p.Seq)
		}
	}, nil
}

// Scrub reads about bytesMax bytes of all stored data, going on where the last call ended (also over
// restarts); Done says that it came around. The caller sets the pace. A record of the index that is
// corrupt counts as a damaged chunk. A round begins with the tables of open views, which are written anew where they are damaged.
func (s *Store) Scrub(ctx context.Context, bytesMax int64) (VerifyReport, error) {
	if err := s.enter(); err != nil {
		return VerifyReport{}, err
	}
	defer s.leave()
	var report VerifyReport
	var at []byte
	err := s.idx.view(func(tx *bbolt.Tx) error {
		at = slices.Clone(tx.Bucket(bucketMeta).Get(keyScrub))
		return nil
	})
	if err != nil {
		return report, fmt.Errorf("find where scrub ended: %w", err)
	}
	if at == nil {
		if err := s.restoreViews(ctx); err != nil {
			return report, fmt.Errorf("scrub: %w", err)
		}
	}
	for !report.Done && report.Clusters*ClusterSize < bytesMax {
		if at, err = s.scrubEntry(ctx, at, &report); err != nil {
			return report, fmt.Errorf("scrub: %w", err)
		}
		report.Done = at == nil
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	err = s.update(func(tx *bbolt.Tx) error {
		if at == nil {
			return tx.Bucket(bucketMeta).Delete(keyScrub)
		}
		return tx.Bucket(bucketMeta).Put(keyScrub, at)
	})
	if err != nil {
		return report, fmt.Errorf("record where scrub ended: %w", err)
	}
	return report, nil
}

// scrubEntry reads the version behind key at, and returns its key; nil when there is none.
func (s *Store) scrubEntry(ctx context.Context, at []byte, report *VerifyReport) ([]byte, error) {
	var next []byte
	var k chunkKey
	var e entry
	err := s.idx.view(func(tx *bbolt.Tx) (err error) {
		chunks := chunksOf(tx)
		c := chunks.locs.Cursor()
		key, v := c.Seek(at)
		if at != nil && string(key) == string(at) {
			key, v = c.Next()
		}
		next = slices.Clone(key)
		if key == nil {
			return nil
		}
		var ok bool
		if k, _, ok = parseEntryKey(key); !ok {
			return fmt.Errorf("%w: key %x", ErrCorruptIndex, key)
		}
		e, err = chunks.decode(key, v)
		return err
	})
	d := s.disk(k.disk)
	if errors.Is(err, ErrCorruptIndex) && next != nil && d != nil {
		s.log.Error("index record is corrupt", "disk", d.Name, "error", err)
		if len(report.Bad) < DamageListMax {
			report.Bad = append(report.Bad, DamagedRange{d.Name, uint64(k.chunk) * ChunkClusters, ChunkClusters})
		}
		return next, s.markCorrupt()
	}
	if err != nil || next == nil {
		return nil, err
	}
	if d == nil {
		return next, nil // removed a moment ago
	}
	var c cells
	c.lay(e, nil)
	stored := c.stored(k)
	bad, err := d.suspects(ctx, stored)
	if err != nil {
		return nil, err
	}
	report.Clusters += int64(len(stored))
	report.add(d.Name, bad)
	return next, s.markDamaged(bad)
}
