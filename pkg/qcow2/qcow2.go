// Package qcow2 encodes the header and the tables of a read-only qcow2 image, version 3, and reads
// such images back.
//
// It exists for images whose data lies elsewhere in the same file: a recovery point is a header, an
// L1 table and L2 tables that point at clusters already stored. The encoding half is pure: it turns
// numbers into bytes and touches no file. The Reader is for tests and for recovery without QEMU; it
// reads plain images (no backing file, compression, encryption or external data) and treats its
// input as hostile.
//
// All offsets are bytes from the beginning of the image. All methods are safe for concurrent use
// as far as the io.ReaderAt below them is.
package qcow2

import "errors"

// ClusterBits and ClusterSize are what this package writes. The Reader takes other sizes as well.
const (
	ClusterBits = 16
	ClusterSize = 1 << ClusterBits
)

// EntriesPerL2 is the number of clusters that one L2 table maps, in what this package writes.
const EntriesPerL2 = ClusterSize / entryBytes

// MaxHostOffset is the first offset that a table entry cannot hold.
const MaxHostOffset = 1 << 56

const (
	entryBytes = 8
	// maxL1Bytes is QEMU's own limit.
	maxL1Bytes = 32 << 20
)

// Errors that the Reader and ParseHeader return, wrapped.
var (
	// ErrNotQCOW2: the bytes are no qcow2 image, or contradict themselves.
	ErrNotQCOW2 = errors.New("not a valid qcow2 image")
	// ErrUnsupported: a valid image that uses a feature this package does not read.
	ErrUnsupported = errors.New("qcow2 feature is not supported")
)
