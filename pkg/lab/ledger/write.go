package ledger

import (
	"errors"
	"fmt"
	"io"
)

// Disk is one area that a ledger is written to. Sync returns when what was written before is durable;
// a file opened with O_DSYNC may return at once.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Writer writes the records of one ledger. It is not safe for concurrent use: that one record is
// written at a time is the point.
type Writer struct {
	disks  []Disk
	id     ID
	layout layout
	buffer []byte
}

// NewWriter writes to the areas of one ledger, in the order of their headers. allocate returns memory
// that the disks can be written from; nil means any will do.
func NewWriter(disks []Disk, allocate func(size int) []byte) (*Writer, error) {
	if allocate == nil {
		allocate = func(size int) []byte { return make([]byte, size) }
	}
	header, err := readHeaders(len(disks), func(i int) io.ReaderAt { return disks[i] }, allocate(BlockBytes))
	if err != nil {
		return nil, err
	}
	return &Writer{disks: disks, id: header.ID, layout: newLayout(header), buffer: allocate(header.RecordBytes)}, nil
}

// Write writes record n, which begins at 1 and follows the last by one, and returns when it is
// durable.
func (w *Writer) Write(n uint64) error {
	at := w.layout.place(n)
	fillRecord(w.buffer, w.id, n)
	if _, err := w.disks[at.disk].WriteAt(w.buffer, w.layout.offset(at)); err != nil {
		return fmt.Errorf("write record %d: %w", n, err)
	}
	if err := w.disks[at.disk].Sync(); err != nil {
		return fmt.Errorf("flush record %d: %w", n, err)
	}
	return nil
}

// ErrForeignDisk says that areas which were given together do not make up one ledger.
var ErrForeignDisk = errors.New("the disks do not belong to one ledger")

// readHeaders reads the header of every area and sees that they are the ledger's, complete and in order.
func readHeaders(count int, area func(int) io.ReaderAt, buffer []byte) (Header, error) {
	var first Header
	for i := range count {
		h, err := ReadHeader(area(i), buffer)
		if err != nil {
			return Header{}, fmt.Errorf("disk %d: %w", i, err)
		}
		if h.Disk != i {
			return Header{}, fmt.Errorf("%w: disk %d of the ledger stands in place %d", ErrForeignDisk, h.Disk, i)
		}
		h.Disk = 0
		if i == 0 {
			first = h
		}
		if h != first {
			return Header{}, fmt.Errorf("%w: disk %d says %+v, the first %+v", ErrForeignDisk, i, h, first)
		}
	}
	if count == 0 || first.Disks != count {
		return Header{}, fmt.Errorf("%w: %d disks given, the ledger has %d", ErrForeignDisk, count, first.Disks)
	}
	return first, nil
}
