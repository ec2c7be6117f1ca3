package recoverystore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"

	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/pkg/qcow2"
)

// checkIndex runs after every step.
func (m *machine) checkIndex(t *rapid.T) {
	if err := m.s.fsck(); err != nil {
		t.Fatalf("fsck: %v", err)
	}
}

// check compares everything the store says with the model.
func (m *machine) check(t *rapid.T) {
	armed := m.armed
	m.armed = ""
	defer func() { m.armed = armed }()
	listed := map[PointID]bool{}
	for _, p := range m.s.Points() {
		listed[p.ID] = true
		want, ok := m.points[p.ID]
		if !ok || p.Damaged || p.Pinned != m.pinned[p.ID] {
			t.Fatalf("point %+v, known %v, pinned %v", p, ok, m.pinned[p.ID])
		}
		full, err := m.s.Point(p.ID)
		if err != nil || full.ServerXML != "<domain/>"+string(p.ID[len(p.ID)-1]) || !bytes.Equal(full.Attachments["vars"], []byte{1, 2, 3}) {
			t.Fatalf("point %s: %v %+v", p.ID, err, full)
		}
		m.checkPoint(t, p.ID, want)
	}
	if len(listed) != len(m.points) {
		t.Fatalf("%d points listed, want %d", len(listed), len(m.points))
	}
	state := m.s.Draft()
	if state.Coverage.Checkpoint != m.cover.Checkpoint || !maps.Equal(state.Coverage.Through, m.cover.Through) {
		t.Fatalf("coverage %+v, want %+v", state.Coverage, m.cover)
	}
	from := rapid.SampledFrom([]ChecksumSource{FromIndex, FromData}).Draw(t, "source")
	for _, spec := range modelDisks {
		m.checkSums(t, spec, from)
	}
}

func (m *machine) checkSums(t *rapid.T, spec DiskSpec, from ChecksumSource) {
	out := make([]Checksum, (spec.SizeBytes+ClusterSize-1)/ClusterSize)
	if err := m.s.Checksums(context.Background(), spec.Name, 0, out, from); err != nil {
		t.Fatal(err)
	}
	for c, have := range out {
		tag := m.latest[spec.Name][uint64(c)]
		want := Checksum{}
		if tag != 0 {
			n := min(ClusterSize, spec.SizeBytes-int64(c)*ClusterSize)
			want = Checksum{ChecksumData, hashClusters(clusterOf(tag, int(n)))[0]}
		}
		if have != want {
			t.Fatalf("%s cluster %d: checksum %+v, want %+v", spec.Name, c, have, want)
		}
	}
}

func (m *machine) checkPoint(t *rapid.T, id PointID, want modelState) {
	v, err := m.s.OpenView(context.Background(), id, ViewOptions{})
	if err != nil {
		t.Fatalf("view of %s: %v", id, err)
	}
	for _, d := range v.Disks {
		if err := compareView(d, want[d.Name]); err != nil {
			t.Fatalf("point %s disk %s: %v", id, d.Name, err)
		}
	}
	if !m.pinned[id] {
		if err := m.s.CloseView(context.Background(), id); err != nil {
			t.Fatal(err)
		}
	}
}

// compareView reads a view as QEMU would, through a slice of the file.
func compareView(d ViewDisk, want modelDisk) error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	image := io.NewSectionReader(f, d.OffsetBytes, d.SizeBytes)
	tables := make([]byte, min(int64(viewClusters(d.VirtualSizeBytes))*ClusterSize, d.SizeBytes))
	if _, err := image.ReadAt(tables, 0); err != nil {
		return err
	}
	r, err := qcow2.NewReader(viewReader{image, bytes.NewReader(tables)})
	if err != nil {
		return err
	}
	if r.Size() != d.VirtualSizeBytes {
		return fmt.Errorf("size %d, want %d", r.Size(), d.VirtualSizeBytes)
	}
	for off := int64(0); off < r.Size(); off += ClusterSize {
		tag := want[uint64(off/ClusterSize)]
		at, err := r.Locate(off)
		if err != nil {
			return err
		}
		if at == 0 && tag == 0 {
			continue
		}
		buf := make([]byte, min(ClusterSize, r.Size()-off))
		if _, err := r.ReadAt(buf, off); err != nil {
			return err
		}
		if !bytes.Equal(buf, clusterOf(tag, len(buf))) {
			return fmt.Errorf("cluster %d is not %d", off/ClusterSize, tag)
		}
	}
	return nil
}

// viewReader reads the tables of a view from memory, and the data from its file.
type viewReader struct {
	image  *io.SectionReader
	tables *bytes.Reader
}

func (v viewReader) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= v.tables.Size() {
		return v.tables.ReadAt(p, off)
	}
	return v.image.ReadAt(p, off)
}
