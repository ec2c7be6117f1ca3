package recoverystore

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// pointRecord is a point in the index. Server XML and attachments lie in the blobs bucket under their
// SHA-256, since they are nearly always those of the point before.
type pointRecord struct {
	Seq          uint64            `json:"seq"`
	Epoch        uint64            `json:"epoch"`
	CreateTime   time.Time         `json:"create_time"`
	CompleteTime time.Time         `json:"complete_time"`
	Consistency  Consistency       `json:"consistency"`
	Checkpoint   string            `json:"checkpoint"`
	ChangedBytes int64             `json:"changed_bytes"`
	StoredBytes  int64             `json:"stored_bytes"`
	Disks        []pointDisk       `json:"disks"`
	ServerXML    string            `json:"server_xml"`
	Attachments  map[string]string `json:"attachments"`
	Deleting     bool              `json:"deleting"`

	// unreadable: of the record only its place is known; times and epoch are those of a neighbour.
	unreadable bool
}

// pointDisk is a disk of a point. The id finds its chunks.
type pointDisk struct {
	DiskInfo
	ID uint32 `json:"id"`
}

func (p *pointRecord) blobs() []string {
	var out []string
	if p.ServerXML != "" {
		out = append(out, p.ServerXML)
	}
	for _, hash := range p.Attachments {
		out = append(out, hash)
	}
	return out
}

// Points returns the complete points, oldest first, from memory, without ServerXML and Attachments. One whose record is unreadable
// is there, damaged, without disks, and with the times of its neighbour.
func (s *Store) Points() []Point {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Point, 0, len(s.points))
	disks := 0
	for _, p := range s.points {
		disks += len(p.Disks)
	}
	room := make([]DiskInfo, disks) // in one piece for all
	for _, p := range s.points {
		if !p.Deleting {
			out = append(out, s.point(p, room[:0:len(p.Disks)]))
			room = room[len(p.Disks):]
		}
	}
	return out
}

// point needs mu. Its disks go into room, as far as that reaches.
func (s *Store) point(p *pointRecord, room []DiskInfo) Point {
	out := Point{
		ID: pointID(p.Seq), Seq: p.Seq, Epoch: p.Epoch,
		CreateTime: p.CreateTime, CompleteTime: p.CompleteTime,
		Consistency: p.Consistency, Checkpoint: p.Checkpoint,
		ChangedBytes: p.ChangedBytes, StoredBytes: p.StoredBytes,
		Damaged: p.unreadable || s.damage.points[p.Seq],
	}
	_, out.Pinned = s.views[p.Seq]
	for _, d := range p.Disks {
		room = append(room, d.DiskInfo)
	}
	out.Disks = room
	return out
}

// Point returns one point with everything it holds. Errors: ErrNoPoint, ErrDamaged (in a *PointError) when the point's record is
// unreadable, ErrCorruptIndex.
func (s *Store) Point(id PointID) (Point, error) {
	if err := s.enter(); err != nil {
		return Point{}, err
	}
	defer s.leave()
	s.mu.Lock()
	rec, err := s.livePoint(id)
	if err != nil {
		s.mu.Unlock()
		return Point{}, err
	}
	out := s.point(rec, nil)
	s.mu.Unlock()
	if rec.unreadable {
		return Point{}, rec.damaged()
	}
	err = s.idx.view(func(tx *bbolt.Tx) error {
		xml, err := getBlob(tx, rec.ServerXML)
		if err != nil {
			return err
		}
		out.ServerXML = string(xml)
		out.Attachments = make(map[string][]byte, len(rec.Attachments))
		for name, hash := range rec.Attachments {
			if out.Attachments[name], err = getBlob(tx, hash); err != nil {
				return fmt.Errorf("attachment %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return Point{}, fmt.Errorf("read recovery point %s: %w", id, err)
	}
	return out, nil
}

// damaged is the refusal of a point whose record is unreadable.
func (p *pointRecord) damaged() error {
	return &PointError{ID: pointID(p.Seq), Reason: fmt.Errorf("%w: its record is unreadable", ErrDamaged)}
}

// livePoint needs mu.
func (s *Store) livePoint(id PointID) (*pointRecord, error) {
	if seq, ok := id.Seq(); ok {
		at, found := s.place(seq)
		if found && !s.points[at].Deleting {
			return s.points[at], nil
		}
	}
	return nil, &PointError{ID: id, Reason: ErrNoPoint}
}

// place is where in the points one of that seq is, or would be. It needs mu.
func (s *Store) place(seq uint64) (at int, found bool) {
	return slices.BinarySearchFunc(s.points, seq, func(p *pointRecord, seq uint64) int { return cmp.Compare(p.Seq, seq) })
}

// newestLive returns the seq of the newest complete point, 0 without one. It needs mu.
func (s *Store) newestLive() uint64 {
	for _, p := range slices.Backward(s.points) {
		if !p.Deleting {
			return p.Seq
		}
	}
	return 0
}

func blobHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// putBlob stores b unless it is there, and returns its name; nothing has the name "".
func putBlob(tx *bbolt.Tx, b []byte) (string, error) {
	if len(b) == 0 {
		return "", nil
	}
	hash := blobHash(b)
	bucket := tx.Bucket(bucketBlobs)
	if bucket.Get([]byte(hash)) != nil {
		return hash, nil
	}
	return hash, bucket.Put([]byte(hash), b)
}

func getBlob(tx *bbolt.Tx, hash string) ([]byte, error) {
	if hash == "" {
		return nil, nil
	}
	b := slices.Clone(tx.Bucket(bucketBlobs).Get([]byte(hash)))
	if blobHash(b) != hash {
		return nil, fmt.Errorf("%w: blob %s is missing or altered", ErrCorruptIndex, hash)
	}
	return b, nil
}

// storeBlobs puts server XML and attachments, and names them in p.
func (p *pointRecord) storeBlobs(tx *bbolt.Tx, meta PointMeta) (err error) {
	if p.ServerXML, err = putBlob(tx, []byte(meta.ServerXML)); err != nil {
		return err
	}
	p.Attachments = make(map[string]string, len(meta.Attachments))
	for name, b := range meta.Attachments {
		if p.Attachments[name], err = putBlob(tx, b); err != nil {
			return err
		}
	}
	return nil
}
