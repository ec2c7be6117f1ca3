// Package ledger is the evidence that a guest of the lab leaves on its disks: numbered records with
// checksums, scattered over one or more data areas, each flushed before the next is begun.
//
// Because records are written one at a time and every record can be recomputed from its number, a
// reader of any copy of the disks, a recovery point for example, can say which record is the last and
// whether anything that must be there is missing or wrong. Records go to the disks in turn, so a copy
// whose disks were taken at different moments shows a gap.
//
// The areas are a ring: when every slot is used, the oldest record is overwritten. With L the last
// record, every record that is younger than the ring is long must be there. The slot that record L+1
// would take is the only one a crash may leave torn; what it holds is reported, not counted.
//
// The package reads and writes through io interfaces only, has no clock and starts no goroutine.
package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// BlockBytes is the unit in which areas are laid out: a record fills one block or several.
const BlockBytes = 4096

// RecordBytesMax bounds a record, so that a reader knows how much to hold at once.
const RecordBytesMax = 1 << 20

// DisksMax bounds the disks of one ledger.
const DisksMax = 32

const (
	headerMagic = "UMBRALDG"
	recordMagic = "UMBRAREC"
	version     = 1
)

// ErrNoLedger says that an area does not begin with the header of a ledger.
var ErrNoLedger = errors.New("no ledger here")

// ErrDamagedHeader says that an area begins like a ledger, but its header is wrong.
var ErrDamagedHeader = errors.New("the header of the ledger is damaged")

// ID tells ledgers apart, so that the records of one guest are never taken for those of another.
type ID [16]byte

// Header is the first block of every area.
type Header struct {
	ID          ID
	RecordBytes int    // bytes of one record, a multiple of BlockBytes
	Disk        int    // which area of the ledger this is, from 0
	Disks       int    // how many areas the ledger has
	Slots       uint64 // slots of each area
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// check says what makes a header unusable, or nil.
func (h Header) check() error {
	switch {
	case h.RecordBytes < BlockBytes || h.RecordBytes > RecordBytesMax || h.RecordBytes%BlockBytes != 0:
		return fmt.Errorf("record of %d bytes: want a multiple of %d up to %d", h.RecordBytes, BlockBytes, RecordBytesMax)
	case h.Disks < 1 || h.Disks > DisksMax:
		return fmt.Errorf("%d disks: want 1 to %d", h.Disks, DisksMax)
	case h.Disk < 0 || h.Disk >= h.Disks:
		return fmt.Errorf("disk %d of %d", h.Disk, h.Disks)
	case h.Slots < 2:
		return fmt.Errorf("room for %d records on a disk: want at least 2", h.Slots)
	}
	return nil
}

func (h Header) encode() []byte {
	block := make([]byte, BlockBytes)
	copy(block, headerMagic)
	binary.LittleEndian.PutUint32(block[8:], version)
	binary.LittleEndian.PutUint32(block[12:], uint32(h.RecordBytes))
	copy(block[16:], h.ID[:])
	binary.LittleEndian.PutUint32(block[32:], uint32(h.Disk))
	binary.LittleEndian.PutUint32(block[36:], uint32(h.Disks))
	binary.LittleEndian.PutUint64(block[40:], h.Slots)
	binary.LittleEndian.PutUint32(block[BlockBytes-4:], crc32.Checksum(block[:BlockBytes-4], castagnoli))
	return block
}

// ReadHeader reads the header at the beginning of an area. It returns ErrNoLedger where there is none
// and ErrDamagedHeader where there is one that cannot be trusted. The block that is read is buffer,
// which must hold BlockBytes; a caller with unbuffered files passes an aligned one.
func ReadHeader(area io.ReaderAt, buffer []byte) (Header, error) {
	block := buffer[:BlockBytes]
	if _, err := area.ReadAt(block, 0); err != nil {
		return Header{}, fmt.Errorf("read the header of the ledger: %w", err)
	}
	if string(block[:8]) != headerMagic {
		return Header{}, ErrNoLedger
	}
	sum := binary.LittleEndian.Uint32(block[BlockBytes-4:])
	if crc32.Checksum(block[:BlockBytes-4], castagnoli) != sum {
		return Header{}, ErrDamagedHeader
	}
	if v := binary.LittleEndian.Uint32(block[8:]); v != version {
		return Header{}, fmt.Errorf("%w: version %d, this program knows %d", ErrDamagedHeader, v, version)
	}
	h := Header{
		RecordBytes: int(binary.LittleEndian.Uint32(block[12:])),
		ID:          ID(block[16:32]),
		Disk:        int(binary.LittleEndian.Uint32(block[32:])),
		Disks:       int(binary.LittleEndian.Uint32(block[36:])),
		Slots:       binary.LittleEndian.Uint64(block[40:]),
	}
	if err := h.check(); err != nil {
		return Header{}, fmt.Errorf("%w: %w", ErrDamagedHeader, err)
	}
	return h, nil
}

// Format prepares the areas of a new ledger, which must read as zeros beyond their first block. Each
// gets as many slots as the smallest area has room for; sizes are in bytes.
func Format(areas []io.WriterAt, sizes []int64, id ID, recordBytes int) error {
	if len(areas) == 0 || len(areas) != len(sizes) {
		return fmt.Errorf("format a ledger: %d areas and %d sizes", len(areas), len(sizes))
	}
	h := Header{ID: id, RecordBytes: recordBytes, Disks: len(areas)}
	smallest := sizes[0]
	for _, size := range sizes {
		smallest = min(smallest, size)
	}
	if recordBytes > 0 && smallest > BlockBytes {
		h.Slots = uint64(smallest-BlockBytes) / uint64(recordBytes)
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("format a ledger: %w", err)
	}
	for i, area := range areas {
		h.Disk = i
		if _, err := area.WriteAt(h.encode(), 0); err != nil {
			return fmt.Errorf("write the header of ledger area %d: %w", i, err)
		}
	}
	return nil
}
