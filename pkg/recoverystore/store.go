package recoverystore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/zeebo/xxh3"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Sum is the xxh3-128 of a cluster's bytes. The last cluster of a disk is hashed without padding.
type Sum = xxh3.Uint128

// Store is an open recovery store.
//
// Locks, in the order in which they are taken: ops, deleteMu (one deletion), viewMu (one view change),
// commitMu (one index transaction together with its effect on memory), mu (memory). mu is held
// for moments only, never over file or index writes.
type Store struct {
	dir  string
	opts Options
	log  *slog.Logger
	idx  *index

	ops                        sync.RWMutex // held shared by every operation, by Close alone
	deleteMu, viewMu, commitMu sync.Mutex

	mu       sync.Mutex
	closed   error            // why the store takes no more calls
	disks    map[uint32]*disk // all, by id
	retired  []dataFile       // of disks that were removed, still open
	active   []*disk          // those of the next point, in the order given
	points   []*pointRecord   // by seq, those being deleted included
	deleting int              // how many of them are being deleted
	seq      uint64           // of the draft
	draft    draftRecord
	handle   *Draft
	views    map[uint64]viewRecord
	opening  map[uint64]int // points that must not be deleted for the moment
	// doubtful slots may be those of views whose records are unreadable.
	doubtful []int
	damage   damageState
}

// Close waits for running operations and closes the store. A draft that is open is abandoned: what
// it wrote since the last SaveProgress is dropped. Closing again does nothing.
func (s *Store) Close() error {
	_ = s.stop(errors.New("closed by its user"))
	s.ops.Lock()
	defer s.ops.Unlock()
	if s.idx == nil {
		return nil
	}
	err := s.closeFiles()
	s.idx = nil
	return err
}

func (s *Store) closeFiles() error {
	err := s.idx.db.Close()
	for _, d := range s.disks {
		err = errors.Join(err, d.file.Close())
	}
	for _, f := range s.retired {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Remove deletes a store that nobody has open, points and all. Error: ErrLocked.
func Remove(dir string) error {
	idx, err := openIndex(context.Background(), dir, Options{}.withDefaults())
	if errors.Is(err, ErrLocked) {
		return err
	}
	if err == nil {
		defer func() { _ = idx.db.Close() }()
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove recovery store: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// fault calls the fault hook. An error stops the store where it is.
func (s *Store) fault(p Failpoint) error {
	if s.opts.Faults == nil {
		return nil
	}
	err := s.opts.Faults(p)
	if err == nil {
		return nil
	}
	return s.stop(fmt.Errorf("fault at %s: %w", p, err))
}

// stop makes every later call fail: memory no longer says what the index says. The error it returns is an ErrClosed too.
func (s *Store) stop(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	cause = fmt.Errorf("%w: %w", ErrClosed, cause)
	if s.closed == nil {
		s.closed = cause
	}
	return cause
}

// Stopped returns why the store takes no more calls: it was closed, or a failure left in doubt what its index holds. Then only
// to close it and to open it again is left. Nil while it works.
func (s *Store) Stopped() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped()
}

// stopped needs mu.
func (s *Store) stopped() error {
	if s.closed == nil {
		if err := s.idx.db.Broken(); err != nil {
			s.closed = fmt.Errorf("%w: %w", ErrClosed, corruptIndex(err))
		}
	}
	return s.closed
}

// update runs an index transaction. When its commit fails, nobody can say whether it took effect; then the store stops, and
// the next Open sees which it was. Only a lack of space that showed before the last write of the commit is harmless.
func (s *Store) update(fn func(tx *bbolt.Tx) error) error {
	id := 0
	err := s.idx.update(func(tx *bbolt.Tx) error {
		err := fn(tx)
		if err == nil {
			id = tx.ID()
		}
		return err
	})
	if err = noSpaceError(err); err != nil && id != 0 && (!errors.Is(err, ErrNoSpace) || s.idx.shows(id)) {
		return s.stop(fmt.Errorf("commit to index: %w", err))
	}
	return err
}

// enter begins an operation, unless the store is closed; leave ends it. They do not nest.
func (s *Store) enter() error {
	s.ops.RLock()
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.stopped()
	if err != nil {
		s.ops.RUnlock()
	}
	return err
}

func (s *Store) leave() { s.ops.RUnlock() }

// release punches freed extents, then lets them be used again.
func (s *Store) release(freed diskExtents) {
	for id, list := range freed {
		list = joined(list)
		d := s.disk(id)
		if err := d.punch(list); err != nil {
			// Not reused before the next Open punches it: the file system may be in trouble.
			s.log.Warn("freed space could not be punched", "disk", d.Name, "error", err)
			continue
		}
		s.mu.Lock()
		for _, e := range list {
			d.space.release(e)
		}
		s.mu.Unlock()
	}
}

func (s *Store) disk(id uint32) *disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disks[id]
}

// activeDisk returns a disk of the next point by its name.
func (s *Store) activeDisk(name string) (*disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.active {
		if d.Name == name {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w: %q", ErrNoDisk, name)
}

func noSpaceError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
