package recoverystore

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// inPageCache tells whether the beginning of a file can be read without waiting for the disk (RWF_NOWAIT of preadv2(2)).
func inPageCache(t *testing.T, path string) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, ClusterSize)}, 0, unix.RWF_NOWAIT)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return n > 0
}

// What is written is what is read, whichever way it went to the file and whatever was there before; and much data does not go
// through the page cache.
func TestMuchDataIsWrittenAroundThePageCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.data")
	f, made, err := openDataFile(path, nil)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if f.direct == nil {
		t.Skip("this file system has no direct writes")
	}
	var want []byte
	write := func(fill byte, off, n int) {
		t.Helper()
		data := bytes.Repeat([]byte{fill}, n)
		if got, err := f.WriteAt(data, int64(off)); got != n || err != nil {
			t.Fatalf("%d bytes written of %d at %d: %v", got, n, off, err)
		}
		if end := off + n; end > len(want) {
			want = append(want, make([]byte, end-len(want))...)
		}
		copy(want[off:], data)
		got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(want))))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("after %d bytes at %d something else is read than was written: %v", n, off, err)
		}
	}
	const much = 2 * directBytesMin
	if n, err := f.WriteAt(make([]byte, much), 0); n != much || err != nil {
		t.Fatal(n, err)
	}
	want = make([]byte, much)
	if inPageCache(t, path) {
		t.Error("it is in the page cache")
	}
	write(1, ClusterSize, ClusterSize)          // through the page cache, where nothing is
	write(2, 0, much)                           // over what is there, not yet on the disk
	write(3, much/2, much)                      // over the end
	write(4, 3*ClusterSize+512, directBytesMin) // not aligned
	if !inPageCache(t, path) {
		t.Error("nothing is in the page cache: nothing here can tell")
	}
}
