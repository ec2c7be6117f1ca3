package recoverystore

import (
	"log/slog"
	"time"

	"go.etcd.io/bbolt"
)

// Limits that hold for every store.
const (
	// DefaultReserveBytes is kept free on the file system, so that the index can always be written.
	DefaultReserveBytes = 64 << 20
	// DefaultLockTimeout is how long Open waits for another process to let go of the store.
	DefaultLockTimeout = 2 * time.Second
	// AttachmentBytesMax bounds the server XML and the attachments of one point together.
	AttachmentBytesMax = 64 << 20
)

// Owner is the user and group that store files belong to, so that QEMU may read them.
type Owner struct{ UID, GID int }

// Options configure a store. The zero value works.
type Options struct {
	// Now tells the time; it is only recorded. Default: the system clock.
	Now func() time.Time
	// Owner, when set, is given every file the store makes.
	Owner *Owner
	// Logger gets state changes and damage. Default: discard.
	Logger *slog.Logger
	// BytesMax bounds the data clusters held, in bytes; 0 means no bound.
	BytesMax int64
	// ReserveBytes stay free on the file system; 0 means DefaultReserveBytes, negative none.
	ReserveBytes int64
	// LockTimeout bounds the wait for another process; 0 means DefaultLockTimeout.
	LockTimeout time.Duration
	// Faults, when set, is called at each named Failpoint; an error it returns stops the store there,
	// as a crash would. For tests and fault campaigns.
	Faults func(Failpoint) error

	wrapFile    func(dataFile) dataFile
	wrapIndex   func(*bbolt.DB)
	noIndexSync bool
}

// Failpoint names a place between two steps of a commit.
type Failpoint string

// The places where Options.Faults is called.
const (
	FailDataWritten    Failpoint = "data-written"    // cluster data written, not yet durable
	FailBeforeSync     Failpoint = "before-sync"     // a commit is about to make data durable
	FailBeforeIndex    Failpoint = "before-index"    // data durable, index transaction not begun
	FailInIndex        Failpoint = "in-index"        // inside the transaction, before its commit
	FailAfterIndex     Failpoint = "after-index"     // transaction committed, nothing punched yet
	FailDeleteMarked   Failpoint = "delete-marked"   // points marked as deleting, nothing freed
	FailDeleteBatch    Failpoint = "delete-batch"    // one batch of a deletion finished
	FailViewWritten    Failpoint = "view-written"    // tables of a view durable, not recorded
	FailViewUnrecorded Failpoint = "view-unrecorded" // record of a view removed, tables not punched
)
