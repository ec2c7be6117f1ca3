package recoverystore

import (
	"errors"
	"fmt"
)

// Sentinel errors; compare with errors.Is.
var (
	// ErrLocked: another process has the store open.
	ErrLocked = errors.New("recovery store is open in another process")
	// ErrClosed: the store was closed, or stopped after a failure it could not undo.
	ErrClosed = errors.New("recovery store is closed")
	// ErrFormat: the directory holds a store of a format this program does not know.
	ErrFormat = errors.New("unknown recovery store format")
	// ErrCorruptIndex: an index record failed its own checksum or makes no sense.
	ErrCorruptIndex = errors.New("recovery store index is corrupt")
	// ErrNoSpace: the file system or the configured limit is exhausted. All points are intact.
	ErrNoSpace = errors.New("no space left for recovery points")
	// ErrNoPoint: there is no such point.
	ErrNoPoint = errors.New("no such recovery point")
	// ErrNewestPoint: the newest complete point cannot be deleted.
	ErrNewestPoint = errors.New("the newest recovery point cannot be deleted")
	// ErrPointInUse: the point has a view, or is being verified; that ends by itself.
	ErrPointInUse = errors.New("recovery point is in use")
	// ErrNoDisk: the store has no such disk, or the disk is not active.
	ErrNoDisk = errors.New("no such disk")
	// ErrDiskSizeChanged: a disk's size differs from what the store can follow.
	ErrDiskSizeChanged = errors.New("disk size changed")
	// ErrDamaged: stored data is missing or does not match its checksum.
	ErrDamaged = errors.New("recovery point is damaged")
	// ErrDraftOpen: another Draft handle is open.
	ErrDraftOpen = errors.New("a draft is already open")
	// ErrDraftEnded: the handle was completed or abandoned, or its data could not be made durable.
	ErrDraftEnded = errors.New("draft has ended")
	// ErrNoViewSlot: every view slot is taken.
	ErrNoViewSlot = errors.New("no free view slot")
	// ErrOutOfRange: a cluster range lies outside the disk, or data has an odd length.
	ErrOutOfRange = errors.New("cluster range outside the disk")
)

// PointError says which point a deletion or a view was refused for. It unwraps to the reason.
type PointError struct {
	ID     PointID
	Reason error
}

// Error implements error.
func (e *PointError) Error() string { return fmt.Sprintf("recovery point %s: %v", e.ID, e.Reason) }

// Unwrap returns the reason, one of the sentinels above.
func (e *PointError) Unwrap() error { return e.Reason }

// DiskSizeError says what changed. It unwraps to ErrDiskSizeChanged.
type DiskSizeError struct {
	Disk                 string
	HaveBytes, WantBytes int64
}

// Error implements error.
func (e *DiskSizeError) Error() string {
	return fmt.Sprintf("disk %s: size changed from %d to %d bytes", e.Disk, e.HaveBytes, e.WantBytes)
}

// Unwrap returns ErrDiskSizeChanged.
func (e *DiskSizeError) Unwrap() error { return ErrDiskSizeChanged }
