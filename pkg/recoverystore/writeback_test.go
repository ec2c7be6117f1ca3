package recoverystore

import (
	"slices"
	"testing"
)

// hintedFile notes what the kernel was asked to begin writing.
type hintedFile struct {
	dataFile
	hints *[]extent
}

func (f hintedFile) WriteBack(off, n int64) {
	*f.hints = append(*f.hints, extent{uint64(off) / ClusterSize, uint64(n) / ClusterSize})
}

func TestAlmostAllIsBeingWrittenWhenACommitBegins(t *testing.T) {
	var hints []extent
	s := newTestStore(t, Options{wrapFile: func(f dataFile) dataFile { return hintedFile{f, &hints} }}, DiskSpec{"vda", 8 << 20})
	first := takePoint(t, s, "vda", 0, 1, 1, 1, 1, 1, 1)
	d := begin(t, s)
	for _, cluster := range []uint64{0, 2, 4} {
		writeTags(t, d, "vda", cluster, 2)
	}
	complete(t, d)
	if err := s.Delete(t.Context(), first); err != nil { // leaves three holes of a cluster
		t.Fatal(err)
	}
	hints = nil
	d = begin(t, s)
	for i := range uint64(3 + 2*writeBackClusters + 3) {
		writeTags(t, d, "vda", i, 3)
	}
	var counts []uint64
	for _, e := range hints {
		counts = append(counts, e.count)
	}
	if want := []uint64{1, 1, 1, writeBackClusters, writeBackClusters}; !slices.Equal(counts, want) {
		t.Errorf("pieces of %v clusters are being written, want %v: all but the last few", counts, want)
	}
}
