package recoverystore

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

// faultyFile is a data file on the disk.
type faultyFile struct {
	dataFile
	d    *faultydisk.Disk
	name string
}

func onFaultyDisk(d *faultydisk.Disk) func(dataFile) dataFile {
	return func(f dataFile) dataFile { return &faultyFile{f, d, f.(*osFile).Name()} }
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	return f.d.Write(f.dataFile, f.name, f.dataFile.WriteAt, p, off)
}

func (f *faultyFile) Datasync() error { return f.d.Flush(f.name) }

func (f *faultyFile) Punch(off, n int64) error {
	carryOut, err := f.d.Call()
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
		f.d.Remember(f.dataFile, f.name, make([]byte, at-from), from)
	}
	return errors.Join(err, f.dataFile.Punch(off, n))
}

// Truncate is durable at once: what is cut off is never needed again, and what is added is zero either way.
func (f *faultyFile) Truncate(size int64) error {
	carryOut, err := f.d.Call()
	if !carryOut {
		return err
	}
	f.d.Forget(f.name)
	return errors.Join(err, f.dataFile.Truncate(size))
}

func (f *faultyFile) WriteBack(int64, int64) {}
