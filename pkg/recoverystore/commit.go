package recoverystore

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"
)

// maxSeq is behind every seq.
const maxSeq = 1<<64 - 1

// SaveProgress makes everything written so far durable, together with a new coverage. No point
// becomes visible. After ErrNoSpace it may be repeated; when data could not be made durable the draft
// has ended (ErrDraftEnded from then on) and what it wrote since the last commit is dropped.
// ErrCorruptIndex means that what was saved before is unreadable: DiscardDraft gets rid of it.
func (d *Draft) SaveProgress(ctx context.Context, c Coverage) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.s.leave()
	if err := d.s.checkCoverage(c); err != nil {
		return err
	}
	_, err := d.commit(ctx, func(_ *bbolt.Tx, draft *draftRecord) (*pointRecord, error) {
		draft.Coverage = c.clone()
		return nil, nil
	})
	if err != nil {
		return fmt.Errorf("save progress of recovery point: %w", err)
	}
	return nil
}

// Complete makes everything durable and turns the draft into a point. The coverage becomes whole,
// as of meta.Checkpoint. The handle has ended when it succeeds; errors are those of SaveProgress.
func (d *Draft) Complete(ctx context.Context, meta PointMeta) (Point, error) {
	if err := d.enter(); err != nil {
		return Point{}, err
	}
	defer d.s.leave()
	if err := meta.check(); err != nil {
		return Point{}, err
	}
	s := d.s
	p, err := d.commit(ctx, func(tx *bbolt.Tx, draft *draftRecord) (*pointRecord, error) {
		p := s.newPoint(meta, *draft)
		if err := p.storeBlobs(tx, meta); err != nil {
			return nil, err
		}
		key := uintValue(p.Seq)
		if err := putRecord(tx.Bucket(bucketPoints), key, p); err != nil {
			return nil, err
		}
		*draft = draftRecord{Seq: p.Seq + 1, Coverage: s.wholeCoverage(meta.Checkpoint)}
		return p, tx.Bucket(bucketMeta).Put(keySeq, uintValue(p.Seq+1))
	})
	if err != nil {
		return Point{}, fmt.Errorf("complete recovery point: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.ended = true
	s.handle = nil
	out := s.point(p, nil)
	out.ServerXML, out.Attachments = meta.ServerXML, meta.Attachments
	return out, nil
}

func (m PointMeta) check() error {
	n := len(m.ServerXML)
	for _, b := range m.Attachments {
		n += len(b)
	}
	if n > AttachmentBytesMax {
		return fmt.Errorf("server XML and attachments have %d bytes, the limit is %d", n, AttachmentBytesMax)
	}
	return nil
}

func (s *Store) checkCoverage(c Coverage) error {
	for name, through := range c.Through {
		d, err := s.activeDisk(name)
		if err != nil {
			return fmt.Errorf("coverage: %w", err)
		}
		if through > d.clusters() {
			return fmt.Errorf("coverage of %d clusters: %w: disk %s has %d", through, ErrOutOfRange, name, d.clusters())
		}
	}
	return nil
}

func (s *Store) wholeCoverage(checkpoint string) Coverage {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := Coverage{Checkpoint: checkpoint, Through: map[string]uint64{}}
	for _, d := range s.active {
		c.Through[d.Name] = d.clusters()
	}
	return c
}

func (s *Store) newPoint(meta PointMeta, draft draftRecord) *pointRecord {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &pointRecord{
		Seq: s.seq, Epoch: meta.Epoch, CreateTime: meta.CreateTime, CompleteTime: s.opts.Now(),
		Consistency: meta.Consistency, Checkpoint: meta.Checkpoint,
		// DeleteAll can make them negative: it moves older versions into the draft.
		ChangedBytes: max(0, draft.ChangedClusters) * ClusterSize, StoredBytes: max(0, draft.StoredClusters) * ClusterSize,
	}
	for _, d := range s.active {
		p.Disks = append(p.Disks, pointDisk{DiskInfo{d.Name, d.SizeBytes}, d.ID})
	}
	return p
}

// commit makes the pending data durable, then everything about it in one transaction: the chunks, the
// space, and what finish does with the draft record. finish returns the point, if it made one.
func (d *Draft) commit(ctx context.Context, finish func(*bbolt.Tx, *draftRecord) (*pointRecord, error)) (*pointRecord, error) {
	s := d.s
	if err := d.makeDurable(ctx); err != nil {
		return nil, err
	}
	if err := s.fault(FailBeforeIndex); err != nil {
		return nil, err
	}
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	c := s.newCommit(d)
	var point *pointRecord
	err := s.update(func(tx *bbolt.Tx) (err error) {
		c.begin(tx)
		if err = c.writeChunks(); err != nil {
			return err
		}
		if err = c.writeSpace(); err != nil {
			return err
		}
		if point, err = finish(tx, &c.draft); err != nil {
			return err
		}
		if err = putRecord(tx.Bucket(bucketDraft), keyDraft, c.draft); err != nil {
			return err
		}
		return s.fault(FailInIndex)
	})
	if err != nil {
		return nil, err
	}
	c.adopt(d, point)
	if err := s.fault(FailAfterIndex); err != nil {
		return nil, err
	}
	s.release(c.freed)
	return point, nil
}

// makeDurable syncs the files written to. When that fails the data cannot be trusted any more.
func (d *Draft) makeDurable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := d.s.fault(FailBeforeSync); err != nil {
		return err
	}
	d.s.mu.Lock()
	var dirty []*disk
	for _, disk := range d.s.disks {
		if disk.dirty {
			dirty = append(dirty, disk)
		}
	}
	d.s.mu.Unlock()
	for _, disk := range dirty {
		if err := disk.sync(); err != nil {
			d.drop()
			return err
		}
	}
	return nil
}
