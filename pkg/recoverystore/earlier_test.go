package recoverystore

import (
	"archive/zip"
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"
)

// The stores that earlier versions wrote are in testdata. format-1.zip was written by the code of November 2026, when format 1 had its
// last change: four points of two disks, of which the second was deleted, a view of the third, a draft with a coverage, and a damaged
// cluster that Verify had found. They are never made anew: whoever raises FormatVersion adds one, and goes on to read these.

// earlierStore is a copy of a store of testdata.
func earlierStore(t *testing.T, name string) (dir string) {
	t.Helper()
	packed, err := zip.OpenReader(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "store")
	if err := errors.Join(os.CopyFS(dir, packed), packed.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAStoreOfFormat1IsReadWithEverythingInIt(t *testing.T) {
	s := openTest(t, earlierStore(t, "format-1.zip"), Options{})
	at := time.Date(2026, 11, 26, 6, 0, 0, 0, time.UTC)
	disks := []DiskInfo{{"vda", 20*ClusterSize + 512}, {"vdb", 4 * ClusterSize}}
	points := []Point{
		{
			ID: "rp-000000000001", Seq: 1, Epoch: 1, CreateTime: at.Add(time.Minute), CompleteTime: at, Consistency: CrashConsistent, Checkpoint: "umbra-1",
			ChangedBytes: 7 * ClusterSize, StoredBytes: 7 * ClusterSize, Disks: disks, Damaged: true, ServerXML: "<domain/>", Attachments: map[string][]byte{},
		},
		{
			ID: "rp-000000000003", Seq: 3, Epoch: 2, CreateTime: at.Add(3 * time.Minute), CompleteTime: at, Consistency: ApplicationConsistent, Checkpoint: "umbra-3",
			ChangedBytes: 3 * ClusterSize, StoredBytes: 2 * ClusterSize, Disks: disks, Damaged: true, Pinned: true, ServerXML: "<domain>3</domain>",
			Attachments: map[string][]byte{"nvram": []byte("variables")},
		},
		{
			ID: "rp-000000000004", Seq: 4, Epoch: 2, CreateTime: at.Add(4 * time.Minute), CompleteTime: at, Consistency: CrashConsistent, Checkpoint: "umbra-4",
			ChangedBytes: 2 * ClusterSize, StoredBytes: 2 * ClusterSize, Disks: disks, Damaged: true, ServerXML: "<domain>3</domain>",
			Attachments: map[string][]byte{},
		},
	}
	for i, found := range s.Points() {
		got, err := s.Point(found.ID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(points[i], got); diff != "" {
			t.Error(diff)
		}
	}
	if n := len(s.Points()); n != len(points) {
		t.Errorf("it has %d points", n)
	}
	draft := DraftState{Seq: 5, Coverage: Coverage{"umbra-5", map[string]uint64{"vda": 6, "vdb": 0}}, SavedBytes: ClusterSize}
	if diff := cmp.Diff(draft, s.Draft()); diff != "" {
		t.Error(diff)
	}
	if views := s.Views(); len(views) != 1 || views[0].PointID != points[1].ID {
		t.Errorf("its views: %+v", views)
	}
	if diff := cmp.Diff([]DamagedRange{{"vdb", 1, 1}}, s.LatestDamage(10)); diff != "" {
		t.Error(diff)
	}
	readEarlierPoints(t, s)
}

// readEarlierPoints reads every byte, over the views that QEMU would read, but for the damaged cluster.
func readEarlierPoints(t *testing.T, s *Store) {
	t.Helper()
	vda := map[PointID]modelDisk{
		"rp-000000000001": {0: 1, 1: 2, 2: 3, 3: 4, 19: 5, 20: 6},
		"rp-000000000003": {0: 1, 1: 22, 3: 4, 19: 5, 20: 6},
		"rp-000000000004": {0: 31, 1: 22, 3: 4, 19: 5, 20: 36},
	}
	for id, want := range vda {
		v, err := s.OpenView(t.Context(), id, ViewOptions{AllowDamaged: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := compareView(v.Disks[0], want); err != nil {
			t.Errorf("%s: %v", id, err)
		}
		report, err := s.Verify(t.Context(), id, VerifyOptions{})
		if diff := cmp.Diff([]DamagedRange{{"vdb", 1, 1}}, report.Bad); err != nil || diff != "" {
			t.Errorf("%s: %v, %s", id, err, diff)
		}
	}
}

func TestAStoreOfFormat1GoesOn(t *testing.T) {
	dir := earlierStore(t, "format-1.zip")
	s := openTest(t, dir, Options{})
	d := begin(t, s)
	writeTags(t, d, "vdb", 1, 57) // what was damaged
	id := complete(t, d)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir, Options{})
	if p, err := s.Point(id); err != nil || p.Damaged || p.Seq != 5 {
		t.Errorf("%+v, %v", p, err)
	}
	mustRead(t, s, id, modelDisk{0: 31, 1: 22, 3: 4, 5: 45, 19: 5, 20: 36}, modelDisk{0: 27, 1: 57})
}

func TestAStoreOfANewerFormatIsRefusedAndLeftAsItWas(t *testing.T) {
	dir := earlierStore(t, "format-1.zip")
	db, err := bbolt.Open(filepath.Join(dir, indexFileName), indexFileMode, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, uintValue(FormatVersion+1)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	before := filesOf(t, dir)
	if _, err := Open(t.Context(), dir, Options{ReserveBytes: -1}); !errors.Is(err, ErrFormat) {
		t.Errorf("opened with %v", err)
	}
	if after := filesOf(t, dir); !maps.EqualFunc(before, after, bytes.Equal) {
		t.Error("its files are not what they were")
	}
}

func filesOf(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		file, err := os.ReadFile(filepath.Join(dir, name.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[name.Name()] = file
	}
	return files
}
