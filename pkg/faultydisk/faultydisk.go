// Package faultydisk is a disk that fails, loses power or fills up at a call of one's choice, for tests of what writes files and
// bbolt databases.
package faultydisk

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

// Fault is what a faulty disk does at the call it was told of.
type Fault struct {
	Name string
	Err  error // what the call returns; ErrCrash: the machine stops there
	// Forever: every later call fails as well, until the disk is replaced.
	Forever bool
	// Short: a write stores a part of its data before it fails.
	Short bool
	// Done: the call takes effect and fails all the same.
	Done bool
	// Lose says what a crash does to a write that was not flushed. Nil: the write is there.
	Lose func(r *rand.Rand) Loss
}

// ErrCrash as a fault's error stops the machine: no later call does anything.
var ErrCrash = errors.New("crash")

// Loss is what becomes of a write that was not flushed.
type Loss int

// A write that was not flushed is there, is lost, or is there up to some sector.
const (
	LossNone Loss = iota
	LossAll
	LossTorn
)

// Crashes are the ways in which the machine stops: its process is killed, or its power is lost.
func Crashes() []Fault {
	return []Fault{
		{Name: "killed", Err: ErrCrash},
		{Name: "power lost, writes reordered and torn", Err: ErrCrash, Lose: func(r *rand.Rand) Loss { return Loss(r.IntN(3)) }},
		{Name: "power lost, nothing unflushed kept", Err: ErrCrash, Lose: func(*rand.Rand) Loss { return LossAll }},
	}
}

// Failures are the ways in which one call fails.
func Failures() []Fault {
	return []Fault{
		{Name: "EIO", Err: unix.EIO},
		{Name: "ENOSPC", Err: unix.ENOSPC},
		{Name: "EIO after it was done", Err: unix.EIO, Done: true},
		{Name: "ENOSPC after it was done", Err: unix.ENOSPC, Done: true},
		{Name: "short write", Err: unix.ENOSPC, Short: true},
	}
}

// Dir is a folder in memory where there is one, for as long as the test: what a crash loses is decided by the disk, not by the
// file system.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "umbra-faultydisk-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Disk stands under files and databases. It counts what is asked of it, fails one such call, and remembers what was not flushed,
// so that a crash can lose it. It is not safe for concurrent use.
type Disk struct {
	t     testing.TB
	fault Fault
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

// New is a disk that fails the at-th call. 0: none.
func New(t testing.TB, fault Fault, at int) *Disk {
	return &Disk{t: t, fault: fault, at: at, rand: rand.New(rand.NewPCG(uint64(at), 1)), unflushed: map[string][]unflushedWrite{}}
}

// Call counts one call and says how it ends: whether it is to be carried out, and its error.
func (d *Disk) Call() (carryOut bool, err error) {
	if d.broke && (d.fault.Forever || errors.Is(d.fault.Err, ErrCrash)) {
		return false, d.fault.Err
	}
	d.calls++
	if d.calls != d.at {
		return true, nil
	}
	d.broke = true
	return d.fault.Done, d.fault.Err
}

// Fault is what the disk was told to do.
func (d *Disk) Fault() Fault { return d.fault }

// Broke tells whether the call that fails was reached.
func (d *Disk) Broke() bool { return d.broke }

// Crashed tells whether the machine has stopped.
func (d *Disk) Crashed() bool { return d.broke && errors.Is(d.fault.Err, ErrCrash) }

// Write carries out a write to one file.
func (d *Disk) Write(f io.ReaderAt, name string, write func([]byte, int64) (int, error), p []byte, off int64) (int, error) {
	carryOut, err := d.Call()
	if !carryOut {
		if !d.fault.Short || len(p) < 2 {
			return 0, err
		}
		p = p[:len(p)/2]
	}
	d.Remember(f, name, p, off)
	n, writeErr := write(p, off)
	return n, errors.Join(err, writeErr)
}

// Remember notes a write that a crash may lose: what is there before it, and what comes.
func (d *Disk) Remember(f io.ReaderAt, name string, after []byte, off int64) {
	if d.fault.Lose == nil {
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

// Forget makes what was written to a file durable, whatever the disk was told of.
func (d *Disk) Forget(name string) { delete(d.unflushed, name) }

// Flush makes everything written to a file durable.
func (d *Disk) Flush(name string) error {
	carryOut, err := d.Call()
	if carryOut {
		d.Forget(name)
	}
	return err
}

// LosePower does to what was not flushed what a crash of the machine does: some of it is there, in any order, and some is not.
func (d *Disk) LosePower() {
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
			switch d.fault.Lose(d.rand) {
			case LossAll:
				continue
			case LossTorn:
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

// WrapDatabase puts a database on the disk. bbolt has a seam for its writes, which its own tests use. Its flushes cannot be
// seen, but it is known where they are: before a meta page is written, and after it.
func (d *Disk) WrapDatabase(db *bbolt.DB) {
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
			return d.Write(file, name, write, p, off)
		}
		if err := d.Flush(name); err != nil {
			return 0, err
		}
		n, err := d.Write(file, name, write, p, off)
		if err != nil {
			return n, err
		}
		return n, d.Flush(name)
	}
}
