package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	l1OffsetMask = 0x00fffffffffffe00
	l2OffsetMask = 0x00fffffffffffe00
	l2Compressed = 1 << 62
	l2Zero       = 1
)

// Reader reads the disk inside a plain qcow2 image.
type Reader struct {
	image  io.ReaderAt
	header Header
	l1     []uint64
}

// NewReader reads the header and the L1 table of the image. Errors wrap ErrNotQCOW2 or
// ErrUnsupported, or are the image's read errors.
func NewReader(image io.ReaderAt) (*Reader, error) {
	b := make([]byte, headerLength)
	if _, err := image.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read qcow2 header: %w", err)
	}
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	n := h.l1EntriesNeeded()
	raw := make([]byte, n*entryBytes)
	if _, err := image.ReadAt(raw, int64(h.L1Offset)); err != nil && n > 0 {
		return nil, fmt.Errorf("read qcow2 L1 table: %w", err)
	}
	r := &Reader{image: image, header: h, l1: make([]uint64, n)}
	for i := range r.l1 {
		r.l1[i] = binary.BigEndian.Uint64(raw[i*entryBytes:]) & l1OffsetMask
		if r.l1[i]&r.clusterMask() != 0 {
			return nil, fmt.Errorf("%w: L2 table at %d", ErrNotQCOW2, r.l1[i])
		}
	}
	return r, nil
}

// Size returns the size of the disk in bytes.
func (r *Reader) Size() int64 { return int64(r.header.VirtualSize) }

// Header returns the image's header.
func (r *Reader) Header() Header { return r.header }

func (r *Reader) clusterMask() uint64 { return 1<<r.header.ClusterBits - 1 }

// Locate returns where in the image the cluster lies that holds byte off of the disk; 0 means that
// it reads as zero.
func (r *Reader) Locate(off int64) (uint64, error) {
	if off < 0 || off >= r.Size() {
		return 0, fmt.Errorf("locate byte %d of a disk of %d: %w", off, r.Size(), io.EOF)
	}
	cluster := uint64(off) >> r.header.ClusterBits
	l2Bits := r.header.ClusterBits - 3
	table := r.l1[cluster>>l2Bits]
	if table == 0 {
		return 0, nil
	}
	var raw [entryBytes]byte
	at := table + cluster&(1<<l2Bits-1)*entryBytes
	if _, err := r.image.ReadAt(raw[:], int64(at)); err != nil {
		return 0, fmt.Errorf("read qcow2 L2 entry at %d: %w", at, err)
	}
	return r.decodeL2(binary.BigEndian.Uint64(raw[:]))
}

func (r *Reader) decodeL2(entry uint64) (uint64, error) {
	if entry&l2Compressed != 0 {
		return 0, fmt.Errorf("%w: compressed cluster", ErrUnsupported)
	}
	if entry&l2Zero != 0 {
		return 0, nil
	}
	offset := entry & l2OffsetMask
	if offset&r.clusterMask() != 0 {
		return 0, fmt.Errorf("%w: cluster at %d", ErrNotQCOW2, offset)
	}
	return offset, nil
}

// ReadAt reads from the disk, as io.ReaderAt does.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read qcow2 disk at %d: negative offset", off)
	}
	total := 0
	for total < len(p) {
		at := off + int64(total)
		if at >= r.Size() {
			return total, io.EOF
		}
		n := min(int64(len(p)-total), r.Size()-at, int64(r.clusterMask())+1-at&int64(r.clusterMask()))
		part := p[total : total+int(n)]
		host, err := r.Locate(at)
		if err != nil {
			return total, err
		}
		if err := r.readPart(part, host, at); err != nil {
			return total, err
		}
		total += int(n)
	}
	return total, nil
}

func (r *Reader) readPart(part []byte, host uint64, at int64) error {
	if host == 0 {
		clear(part)
		return nil
	}
	from := int64(host) + at&int64(r.clusterMask())
	if _, err := r.image.ReadAt(part, from); err != nil {
		return fmt.Errorf("read qcow2 cluster at %d: %w", from, err)
	}
	return nil
}
