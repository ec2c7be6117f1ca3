package recoverystore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/qcow2"
)

const (
	dataFileSuffix = ".store"
	// viewSlots is how many views a store can have at once.
	viewSlots = 32
	// viewRoomFactor is how far a disk may grow before its views no longer fit their slots.
	viewRoomFactor = 2
	// DisksMax bounds the disks of one store, those of older points included.
	DisksMax = 256
	// DiskSizeBytesMax is the largest disk: 512 TiB.
	DiskSizeBytesMax = 1 << 49
)

var diskName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$`)

// diskRecord is a disk in the index.
type diskRecord struct {
	ID           uint32 `json:"id"`
	Name         string `json:"name"`
	SizeBytes    int64  `json:"size_bytes"`
	Active       bool   `json:"active"` // false: only older points have it
	SlotClusters uint64 `json:"slot_clusters"`
	Slots        int    `json:"slots"`
}

func (r diskRecord) clusters() uint64 {
	return uint64(r.SizeBytes+ClusterSize-1) / ClusterSize
}

// dataStart is the first cluster of the file that can hold data.
func (r diskRecord) dataStart() uint64 { return r.SlotClusters * uint64(r.Slots) }

// clusterBytes is how much of a cluster belongs to the disk.
func (r diskRecord) clusterBytes(cluster uint64) int {
	return int(min(ClusterSize, uint64(r.SizeBytes)-cluster*ClusterSize))
}

// disk is an open data file and the space in it. Store.mu guards the record, the allocator and dirty.
type disk struct {
	diskRecord
	path          string
	file          dataFile
	space         *allocator
	committedTail uint64 // space.tail as the index has it
	dirty         bool   // written since the last commit

	syncMu  sync.Mutex
	syncErr error // a failed sync; the kernel reports it once, whoever asked
}

// sync makes what was written durable. After a failure the kernel may have dropped the data and
// call it clean, so every later sync fails too, until forgetSyncError.
func (d *disk) sync() error {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	if d.syncErr != nil {
		return d.syncErr
	}
	if err := d.file.Datasync(); err != nil {
		d.syncErr = noSpaceError(fmt.Errorf("make data of disk %s durable: %w", d.Name, err))
	}
	return d.syncErr
}

func (d *disk) forgetSyncError() {
	d.syncMu.Lock()
	defer d.syncMu.Unlock()
	d.syncErr = nil
}

// punch gives extents back to the file system.
func (d *disk) punch(list []extent) error {
	for _, e := range list {
		if err := d.file.Punch(int64(e.start)*ClusterSize, int64(e.count)*ClusterSize); err != nil {
			return fmt.Errorf("punch %d clusters at cluster %d of %s: %w", e.count, e.start, d.path, err)
		}
	}
	return nil
}

// newDiskRecord plans the file of a new disk: view slots first, with room for growth.
func newDiskRecord(id uint32, spec DiskSpec) (diskRecord, error) {
	if err := spec.Check(); err != nil {
		return diskRecord{}, err
	}
	room := uint64(qcow2.L2Span)
	for room < viewRoomFactor*uint64(spec.SizeBytes) {
		room *= 2
	}
	plan, err := qcow2.Plan(room)
	if err != nil {
		return diskRecord{}, fmt.Errorf("plan views of disk %s: %w", spec.Name, err)
	}
	return diskRecord{
		ID: id, Name: spec.Name, SizeBytes: spec.SizeBytes, Active: true,
		SlotClusters: plan.Size / ClusterSize, Slots: viewSlots,
	}, nil
}

// Check says why no store can have such a disk; nil if one can.
func (spec DiskSpec) Check() error {
	if !diskName.MatchString(spec.Name) {
		return fmt.Errorf("disk name %q: letters, digits, dot, dash and underscore only", spec.Name)
	}
	if spec.SizeBytes <= 0 || spec.SizeBytes > DiskSizeBytesMax {
		return fmt.Errorf("disk %s: size of %d bytes is outside 1 to %d", spec.Name, spec.SizeBytes, int64(DiskSizeBytesMax))
	}
	return nil
}

// openDisk opens a disk's data file. A file is made as long as its view region, and durable before
// anything refers to it; one that is there when the disk is new is a removed disk's, and emptied.
func (s *Store) openDisk(rec diskRecord, tail uint64, isNew bool) (*disk, error) {
	path := filepath.Join(s.dir, rec.Name+dataFileSuffix)
	f, made, err := openDataFile(path, s.opts.Owner)
	if err != nil {
		return nil, err
	}
	d := &disk{diskRecord: rec, path: path, file: f, space: newAllocator(rec.dataStart(), tail), committedTail: tail}
	if s.opts.wrapFile != nil {
		d.file = s.opts.wrapFile(f)
	}
	if isNew {
		err = d.file.Truncate(0)
	}
	var size int64
	if err == nil {
		size, err = d.file.Size()
	}
	if err == nil && (made || size < int64(rec.dataStart())*ClusterSize) {
		err = d.file.Truncate(int64(rec.dataStart()) * ClusterSize)
	}
	if err == nil && (made || isNew) {
		err = errors.Join(d.file.Datasync(), syncDir(s.dir))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare data file of disk %s: %w", rec.Name, err), d.file.Close())
	}
	return d, nil
}

func tailKey(disk uint32) []byte { return binary.BigEndian.AppendUint32(nil, disk) }

func getTail(tx *bbolt.Tx, rec diskRecord) (uint64, error) {
	v := tx.Bucket(bucketTails).Get(tailKey(rec.ID))
	if len(v) != 8 {
		return 0, fmt.Errorf("%w: no tail for disk %s", ErrCorruptIndex, rec.Name)
	}
	tail := binary.BigEndian.Uint64(v)
	if tail < rec.dataStart() || tail >= locMax {
		return 0, fmt.Errorf("%w: tail %d of disk %s", ErrCorruptIndex, tail, rec.Name)
	}
	return tail, nil
}

func putTail(tx *bbolt.Tx, disk uint32, tail uint64) error {
	return tx.Bucket(bucketTails).Put(tailKey(disk), uintValue(tail))
}
