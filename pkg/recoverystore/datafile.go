package recoverystore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// dataFile is what the store does with a data file. Offsets and lengths are in bytes.
type dataFile interface {
	io.ReaderAt
	io.WriterAt
	Datasync() error
	Punch(off, n int64) error
	WriteBack(off, n int64)
	Size() (int64, error)
	AllocatedBytes() (int64, error)
	Truncate(size int64) error
	Close() error
}

const (
	dataFileMode = 0o640
	// directBytesMin is from which length on a write goes around the page cache. For much data that takes a fifth of the
	// processor's time; little is written sooner when the kernel may do many writes at once.
	directBytesMin = 512 << 10
)

type osFile struct {
	*os.File
	direct *os.File // the same file, opened with O_DIRECT; nil where the file system has none
}

// openDataFile opens or makes a data file; made says that it was not there before.
func openDataFile(path string, owner *Owner) (f *osFile, made bool, err error) {
	_, statErr := os.Stat(path)
	made = errors.Is(statErr, os.ErrNotExist)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, dataFileMode)
	if err != nil {
		return nil, false, fmt.Errorf("open data file: %w", err)
	}
	if owner != nil {
		if err := file.Chown(owner.UID, owner.GID); err != nil {
			return nil, false, errors.Join(fmt.Errorf("give away data file: %w", err), file.Close())
		}
	}
	direct, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return &osFile{File: file}, made, nil
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("open data file for direct writes: %w", err), file.Close())
	}
	return &osFile{file, direct}, made, nil
}

// WriteAt writes whole clusters. What the file system or the disk wants aligned otherwise (EINVAL, open(2)) goes through the
// page cache, as does the rest of a direct write that was cut short.
func (f *osFile) WriteAt(p []byte, off int64) (n int, err error) {
	if f.direct != nil && len(p) >= directBytesMin {
		if n, err = f.direct.WriteAt(p, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	more, err := f.File.WriteAt(p[n:], off+int64(n))
	return n + more, err
}

func (f *osFile) Close() error {
	if f.direct == nil {
		return f.File.Close()
	}
	return errors.Join(f.direct.Close(), f.File.Close())
}

// Datasync makes everything written durable.
func (f *osFile) Datasync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Punch gives the blocks of a range back to the file system; it reads as zero from then on. A file
// system that cannot do that keeps the blocks: reuse still works.
func (f *osFile) Punch(off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// WriteBack asks the kernel to begin writing a range. A hint: errors show at Datasync.
func (f *osFile) WriteBack(off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// Size returns the file's length.
func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// AllocatedBytes returns what the file takes on the file system.
func (f *osFile) AllocatedBytes() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync: %w", err)
	}
	if err := d.Sync(); err != nil {
		return errors.Join(fmt.Errorf("sync directory: %w", err), d.Close())
	}
	return d.Close()
}
