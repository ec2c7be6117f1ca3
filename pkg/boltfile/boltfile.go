// Package boltfile opens a bbolt database so that neither a power loss nor damage takes its user down. It promises:
//
//   - A database is there whole or not at all, whenever the power is lost while it is made.
//   - Open reads the structure of every page before bbolt follows it: one that was cut, or of which a bit has flipped, is an
//     ErrCorrupt, where bbolt would hang, fault, or leave out what a page held. Keys and values are the user's to check, and
//     that every bucket is there.
//   - A last transaction that may be missing, since the page that led to it was damaged, is told.
//   - What goes wrong in a page later is an ErrCorrupt too, and no transaction is begun from then on.
package boltfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/clock"
)

// ErrCorrupt says that the file is no database, or a page of it makes no sense or cannot be read.
var ErrCorrupt = errors.New("database file is corrupt")

// lockRetry is how often Open looks whether another process has let go.
const lockRetry = 50 * time.Millisecond

// DB is an open database, for any number of goroutines.
type DB struct {
	bolt   *bbolt.DB
	file   *os.File
	behind bool
	broken atomic.Pointer[error] // what bbolt did not get over
}

// Open opens the database at path, and makes it when there is none. Errors: ErrCorrupt, and bbolt's ErrTimeout when another
// process has it for longer than o.Timeout (0 means no waiting at all).
func Open(ctx context.Context, path string, mode os.FileMode, o bbolt.Options) (*DB, error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path, mode); err != nil {
			return nil, fmt.Errorf("make database %s: %w", path, err)
		}
	}
	db := &DB{}
	// bbolt opens the file, and then takes the lock that it has already, and maps what has been checked.
	o.OpenFile = func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		if db.file, err = os.OpenFile(name, flag&^os.O_CREATE, mode); err != nil {
			return nil, err
		}
		if err = lock(ctx, db.file, o.Timeout); err == nil {
			db.behind, err = check(db.file)
		}
		if err != nil {
			return nil, errors.Join(err, db.file.Close())
		}
		return db.file, nil
	}
	err := db.guard(func() (err error) {
		db.bolt, err = bbolt.Open(path, mode, &o)
		return err
	})
	if err == nil {
		err = removeUnfinished(path)
	}
	if err == nil {
		return db, nil
	}
	if db.Broken() != nil || db.bolt != nil {
		err = errors.Join(err, db.Close())
	}
	if errors.Is(err, berrors.ErrInvalid) || errors.Is(err, berrors.ErrChecksum) || errors.Is(err, berrors.ErrVersionMismatch) {
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil, fmt.Errorf("open database %s: %w", path, err)
}

// lock takes the lock that bbolt takes, on the same open file.
func lock(ctx context.Context, file *os.File, timeout time.Duration) error {
	for waited := time.Duration(0); ; waited += lockRetry {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if waited >= timeout {
			return berrors.ErrTimeout
		}
		if err := clock.System.Wait(ctx, lockRetry); err != nil {
			return err
		}
	}
}

// View runs a transaction that reads.
func (d *DB) View(fn func(*bbolt.Tx) error) error {
	return d.guard(func() error { return d.bolt.View(fn) })
}

// GiveBack lets go of all pages of the file that the transaction's reading has mapped into the process. They stay in the page cache
// and are mapped anew when they are needed, so whoever reads all of a large file can do so without the process growing by it.
// What the transaction has returned stays valid.
func GiveBack(tx *bbolt.Tx) error {
	if _, _, errno := unix.Syscall(unix.SYS_MADVISE, tx.DB().Info().Data, uintptr(tx.Size()), unix.MADV_DONTNEED); errno != 0 {
		return fmt.Errorf("give pages of the database back: %w", errno)
	}
	return nil
}

// Update runs a transaction that writes. Its changes are durable when it returns nil.
func (d *DB) Update(fn func(*bbolt.Tx) error) error {
	return d.guard(func() error { return d.bolt.Update(fn) })
}

// Broken is the ErrCorrupt that ended the use of the database; nil while it works.
func (d *DB) Broken() error {
	if broken := d.broken.Load(); broken != nil {
		return *broken
	}
	return nil
}

// Behind says that one of the two states that bbolt keeps was damaged when the database was opened, so that its last transaction may be missing.
func (d *DB) Behind() bool { return d.behind }

// Bolt is the database itself, for tests that reach below this package.
func (d *DB) Bolt() *bbolt.DB { return d.bolt }

// Close waits for the transactions that run, and closes the database.
func (d *DB) Close() error {
	if d.Broken() == nil {
		return d.guard(d.bolt.Close)
	}
	// bbolt may hold its locks for ever. What it has mapped stays mapped, and would keep the file's lock.
	return errors.Join(unix.Flock(int(d.file.Fd()), unix.LOCK_UN), d.file.Close())
}

// guard runs calls of bbolt. A panic or a memory fault among them ends the use of the database: bbolt follows what a page
// says, also to behind the end of the file, and does not undo what it had begun.
func (d *DB) guard(calls func() error) (err error) {
	if err := d.Broken(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
			d.broken.CompareAndSwap(nil, &err)
		}
	}()
	return calls()
}
