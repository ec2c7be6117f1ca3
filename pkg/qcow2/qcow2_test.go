package qcow2

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

// buildImage lays out a table-only image followed by the given clusters; where[i] is the disk
// cluster that data cluster i belongs to.
func buildImage(t rapid.TB, virtualSize uint64, where []uint64, fill func(i int) byte) []byte {
	t.Helper()
	l, err := Plan(virtualSize)
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, l.Size)
	used := make([]bool, l.L2Tables)
	for i, cluster := range where {
		table := int(cluster / EntriesPerL2)
		used[table] = true
		PutL2(image[l.L2At(table):], int(cluster%EntriesPerL2), uint64(len(image)))
		image = append(image, bytes.Repeat([]byte{fill(i)}, ClusterSize)...)
	}
	copy(image, l.Head(used))
	return image
}

func TestReaderReturnsWhatTheTablesPointAt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clusters := rapid.Uint64Range(1, 40000).Draw(t, "clusters")
		size := clusters*ClusterSize - rapid.Uint64Range(0, 127).Draw(t, "short")*512
		where := rapid.SliceOfNDistinct(rapid.Uint64Range(0, clusters-1), 0, 6, rapid.ID[uint64]).Draw(t, "where")
		image := buildImage(t, size, where, func(i int) byte { return byte(i + 1) })
		r, err := NewReader(bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		want := map[uint64]byte{}
		for i, c := range where {
			want[c] = byte(i + 1)
		}
		off := rapid.Int64Range(0, int64(size)-1).Draw(t, "off")
		if len(where) > 0 && rapid.Bool().Draw(t, "near") {
			off = min(int64(where[0])*ClusterSize+rapid.Int64Range(0, ClusterSize-1).Draw(t, "in"), int64(size)-1)
		}
		buf := make([]byte, rapid.IntRange(1, 3*ClusterSize).Draw(t, "len"))
		n, err := r.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if wantN := min(int64(len(buf)), int64(size)-off); int64(n) != wantN {
			t.Fatalf("read %d bytes, want %d", n, wantN)
		}
		for i := range n {
			if at := off + int64(i); buf[i] != want[uint64(at)/ClusterSize] {
				t.Fatalf("byte %d is %d, want %d", at, buf[i], want[uint64(at)/ClusterSize])
			}
		}
	})
}

func TestQEMUReadsWhatThisPackageWrites(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	const clusters = EntriesPerL2 + 3
	size := uint64(clusters*ClusterSize - 512)
	where := []uint64{0, 7, EntriesPerL2 - 1, EntriesPerL2, clusters - 1}
	image := buildImage(t, size, where, func(i int) byte { return byte(0xa0 + i) })
	dir := t.TempDir()
	qcow, raw := filepath.Join(dir, "a.qcow2"), filepath.Join(dir, "a.raw")
	if err := os.WriteFile(qcow, image, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for i, c := range where {
		part := bytes.Repeat([]byte{byte(0xa0 + i)}, ClusterSize)
		if _, err := f.WriteAt(part[:min(ClusterSize, size-c*ClusterSize)], int64(c*ClusterSize)); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), tool, "compare", "-f", "qcow2", "-F", "raw", qcow, raw).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img compare: %v\n%s", err, out)
	}
}

func TestReaderReadsWhatQEMUWrites(t *testing.T) {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("qemu-img is not installed")
	}
	content := make([]byte, 5<<20)
	for i := range content {
		content[i] = byte(i/4096) * byte(i%251)
	}
	clear(content[1<<20 : 3<<20])
	dir := t.TempDir()
	raw := filepath.Join(dir, "a.raw")
	if err := os.WriteFile(raw, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, cluster := range []string{"4096", "65536", "2097152"} {
		qcow := filepath.Join(dir, cluster+".qcow2")
		out, err := exec.CommandContext(t.Context(), tool, "convert", "-O", "qcow2", "-o", "cluster_size="+cluster, raw, qcow).CombinedOutput()
		if err != nil {
			t.Fatalf("qemu-img convert: %v\n%s", err, out)
		}
		image, err := os.ReadFile(qcow)
		if err != nil {
			t.Fatal(err)
		}
		// A host file may end inside the last cluster.
		image = append(image, make([]byte, 2<<20)...)
		r, err := NewReader(bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, r.Size())
		if _, err := r.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, content) {
			t.Fatalf("cluster size %s: content differs", cluster)
		}
	}
}

func FuzzReaderSurvivesAnyImage(f *testing.F) {
	f.Add(buildImage(f, 3*ClusterSize, []uint64{1}, func(int) byte { return 1 })[:5*ClusterSize])
	f.Add(Header{VirtualSize: 1 << 40, ClusterBits: 16, L1Entries: 2048, L1Offset: 1 << 17}.Marshal())
	f.Fuzz(func(t *testing.T, image []byte) {
		r, err := NewReader(bytes.NewReader(image))
		if err != nil {
			return
		}
		buf := make([]byte, 4096)
		for _, off := range []int64{0, 1 << 16, r.Size() / 2, r.Size() - 1} {
			if off < 0 {
				continue
			}
			n, err := r.ReadAt(buf, off)
			if err == nil && n != len(buf) {
				t.Fatalf("short read of %d bytes without an error", n)
			}
		}
	})
}
