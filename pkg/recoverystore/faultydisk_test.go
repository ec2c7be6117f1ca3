package recoverystore

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"reflect"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// diskFault is what a faulty disk does at the call it was told of.
type diskFault struct {
	name string
	err  error // what the call returns; errCrash: the machine stops there
	// forever: every later call fails as well, until the disk is replaced.
	forever bool
	// short: a write stores a part of its data before it fails.
	short bool
	// done: the call takes effect and fails all the same.
	done bool
	// lose says what a crash does to a write that was not flushed. Nil: the write is there.
	lose func(r *rand.Rand) loss
}

type loss int

const (
	lossNone loss = iota
	lossAll
	lossTorn
)

// faultyDisk stands under a store's data files and its index. It counts what the store asks of it, fails one such call, and
// remembers what was not flushed, so that a crash can lose it.
type faultyDisk struct {
	t     testing.TB
	fault diskFault
	at    int // the number of the call that fails; 0: none
	calls int
	rand  *rand.Rand
	broke bool // the call was reached
	// unflushed writes, oldest first, per file.
	unflushed map[string][]unflushedWrite
}

type unflushedWrite struct {
	off           int64
	before, after []byte
	size          int64 // of the file, before
}

func newFaultyDisk(t testing.TB, fault diskFault, at int) *faultyDisk {
	return &faultyDisk{t: t, fault: fault, at: at, rand: rand.New(rand.NewPCG(uint64(at), 1)), unflushed: map[string][]unflushedWrite{}}
}

// call counts one call and says how it ends: whether it is to be carried out, and its error.
func (d *faultyDisk) call() (carryOut bool, err error) {
	if d.broke && (d.fault.forever || errors.Is(d.fault.err, errCrash)) {
		return false, d.fault.err
	}
	d.calls++
	if d.calls != d.at {
		return true, nil
	}
	d.broke = true
	return d.fault.done, d.fault.err
}

func (d *faultyDisk) crashed() bool { return d.broke && errors.Is(d.fault.err, errCrash) }

// write carries out a write to one file.
func (d *faultyDisk) write(f io.ReaderAt, name string, write func([]byte, int64) (int, error), p []byte, off int64) (int, error) {
	carryOut, err := d.call()
	if !carryOut {
		if !d.fault.short || len(p) < 2 {
			return 0, err
		}
		p = p[:len(p)/2]
	}
	d.remember(f, name, p, off)
	n, writeErr := write(p, off)
	return n, errors.Join(err, writeErr)
}

func (d *faultyDisk) remember(f io.ReaderAt, name string, after []byte, off int64) {
	if d.fault.lose == nil {
		return
	}
	st, err := os.Stat(name)
	if err != nil {
		d.t.Error(err)
		return
	}
	before := make([]byte, len(after))
	if _, err := f.ReadAt(before, off); err != nil && !errors.Is(err, io.EOF) {
		d.t.Error(err)
	}
	d.unflushed[name] = append(d.unflushed[name], unflushedWrite{off, before, append([]byte(nil), after...), st.Size()})
}

// flush makes everything written to a file durable.
func (d *faultyDisk) flush(name string) error {
	carryOut, err := d.call()
	if carryOut {
		delete(d.unflushed, name)
	}
	return err
}

// lose does to what was not flushed what a crash of the machine does: some of it is there, in any order, and some is not.
func (d *faultyDisk) lose() {
	for name, list := range d.unflushed {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			d.t.Fatal(err)
		}
		for i := len(list) - 1; i >= 0; i-- {
			w := list[i]
			if _, err := f.WriteAt(w.before, w.off); err != nil {
				d.t.Fatal(err)
			}
			if err := f.Truncate(w.size); err != nil {
				d.t.Fatal(err)
			}
		}
		for _, i := range d.rand.Perm(len(list)) {
			w := list[i]
			switch d.fault.lose(d.rand) {
			case lossAll:
				continue
			case lossTorn:
				w.after = w.after[:d.rand.IntN(len(w.after)/512+1)*512]
			}
			if _, err := f.WriteAt(w.after, w.off); err != nil {
				d.t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			d.t.Fatal(err)
		}
	}
	d.unflushed = map[string][]unflushedWrite{}
}

// faultyFile is a data file on the disk.
type faultyFile struct {
	dataFile
	d    *faultyDisk
	name string
}

func (d *faultyDisk) wrap(f dataFile) dataFile {
	return &faultyFile{f, d, f.(*osFile).Name()}
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	return f.d.write(f.dataFile, f.name, f.dataFile.WriteAt, p, off)
}

func (f *faultyFile) Datasync() error { return f.d.flush(f.name) }

func (f *faultyFile) Punch(off, n int64) error {
	carryOut, err := f.d.call()
	if !carryOut {
		return err
	}
	fd := int(f.dataFile.(*osFile).Fd())
	for at := off; ; { // what is a hole already does not change
		from, seekErr := unix.Seek(fd, at, unix.SEEK_DATA)
		if seekErr != nil || from >= off+n {
			break
		}
		if at, seekErr = unix.Seek(fd, from, unix.SEEK_HOLE); seekErr != nil {
			return seekErr
		}
		at = min(at, off+n)
		f.d.remember(f.dataFile, f.name, make([]byte, at-from), from)
	}
	return errors.Join(err, f.dataFile.Punch(off, n))
}

// Truncate is durable at once: what is cut off is never needed again, and what is added is zero either way.
func (f *faultyFile) Truncate(size int64) error {
	carryOut, err := f.d.call()
	if !carryOut {
		return err
	}
	delete(f.d.unflushed, f.name)
	return errors.Join(err, f.dataFile.Truncate(size))
}

func (f *faultyFile) WriteBack(int64, int64) {}

// wrapIndex puts the index on the disk. bbolt has a seam for its writes, which its own tests use. Its flushes cannot be
// seen, but it is known where they are: before a meta page is written, and after it.
func (d *faultyDisk) wrapIndex(db *bbolt.DB) {
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	seam := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	write, name := *seam, db.Path()
	file, err := os.Open(name)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = file.Close() })
	*seam = func(p []byte, off int64) (int, error) {
		if off >= 2*int64(os.Getpagesize()) {
			return d.write(file, name, write, p, off)
		}
		if err := d.flush(name); err != nil {
			return 0, err
		}
		n, err := d.write(file, name, write, p, off)
		if err != nil {
			return n, err
		}
		return n, d.flush(name)
	}
}
