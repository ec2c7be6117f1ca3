package recoverystore

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// spoil overwrites one stored cluster of the latest state.
func spoil(t *testing.T, s *Store, cluster uint64) {
	t.Helper()
	var c cells
	if _, err := s.latest(&c, chunkKey{1, uint32(cluster / ChunkClusters)}); err != nil {
		t.Fatal(err)
	}
	off := int64(c.cell[cluster%ChunkClusters].loc) * ClusterSize
	if _, err := s.disks[1].file.WriteAt([]byte("spoilt"), off+100); err != nil {
		t.Fatal(err)
	}
}

func damagedPoints(s *Store) []PointID {
	var out []PointID
	for _, p := range s.Points() {
		if p.Damaged {
			out = append(out, p.ID)
		}
	}
	return out
}

func TestDamageNamesThePointsThatSeeItAndIsRepairedByTheNextOne(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	a := takePoint(t, s, "vda", 0, 1, 2)
	b := takePoint(t, s, "vda", 0, 3)
	c := takePoint(t, s, "vda", 5, 4)
	spoil(t, s, 0) // born at b
	if r, err := s.Verify(t.Context(), a, VerifyOptions{}); err != nil || !r.Done || len(r.Bad) != 0 || r.Clusters != 2 {
		t.Fatalf("verify of the point before: %+v, %v", r, err)
	}
	r, err := s.Verify(t.Context(), c, VerifyOptions{})
	if err != nil || !r.Done || !slices.Equal(r.Bad, []DamagedRange{{"vda", 0, 1}}) {
		t.Fatalf("verify: %+v, %v", r, err)
	}
	check := func(s *Store, want ...PointID) {
		t.Helper()
		if got := damagedPoints(s); !slices.Equal(got, want) {
			t.Fatalf("damaged points %v, want %v", got, want)
		}
	}
	check(s, b, c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, s.dir, Options{})
	check(s, b, c)
	if _, err := s.OpenView(t.Context(), b, ViewOptions{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("view of a damaged point: %v", err)
	}
	if _, err := s.OpenView(t.Context(), b, ViewOptions{AllowDamaged: true}); err != nil {
		t.Fatalf("forced view of a damaged point: %v", err)
	}
	if err := s.CloseView(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	sums := make([]Checksum, 2)
	if err := s.Checksums(t.Context(), "vda", 0, sums, FromIndex); err != nil || sums[0].State != ChecksumUnknown || sums[1].State != ChecksumData {
		t.Fatalf("checksums %+v, %v", sums, err)
	}
	if got := s.LatestDamage(10); !slices.Equal(got, []DamagedRange{{"vda", 0, 1}}) {
		t.Fatalf("latest damage %v", got)
	}
	d := takePoint(t, s, "vda", 0, 9)
	if got := s.LatestDamage(10); len(got) != 0 {
		t.Fatalf("latest damage after repair %v", got)
	}
	check(s, b, c)
	mustRead(t, s, d, modelDisk{0: 9, 1: 2, 5: 4})
	if err := s.Delete(t.Context(), b, c); err != nil {
		t.Fatal(err)
	}
	check(s)
	if left, err := marks(s); err != nil || left != 0 {
		t.Fatalf("%d marks left, %v", left, err)
	}
}

func marks(s *Store) (n int, err error) {
	err = s.idx.view(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucketDamage).Stats().KeyN
		return nil
	})
	return n, err
}

func TestScrubGoesOnWhereItEnded(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 4 * ChunkClusters * ClusterSize})
	for chunk := range uint64(4) {
		takePoint(t, s, "vda", chunk*ChunkClusters, uint32(chunk+1))
	}
	spoil(t, s, 2*ChunkClusters)
	var bad []DamagedRange
	for step := range 5 {
		r, err := s.Scrub(t.Context(), ClusterSize)
		if err != nil {
			t.Fatal(err)
		}
		bad = append(bad, r.Bad...)
		if r.Done != (step == 4) {
			t.Fatalf("step %d: done is %v", step, r.Done)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openTest(t, s.dir, Options{})
	}
	if !slices.Equal(bad, []DamagedRange{{"vda", 2 * ChunkClusters, 1}}) {
		t.Fatalf("scrub found %v", bad)
	}
}

func TestRereadingFindsWhatTheIndexDoesNotKnow(t *testing.T) {
	s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
	a := takePoint(t, s, "vda", 0, 1, 2)
	spoil(t, s, 1)
	sums := make([]Checksum, 16)
	if err := s.Checksums(t.Context(), "vda", 0, sums, FromIndex); err != nil || sums[1].State != ChecksumData {
		t.Fatalf("from the index: %+v, %v", sums[1], err)
	}
	if err := s.Checksums(t.Context(), "vda", 0, sums, FromData); err != nil || sums[1].State != ChecksumUnknown || sums[0].State != ChecksumData {
		t.Fatalf("from the data: %+v, %v", sums[1], err)
	}
	if got := damagedPoints(s); !slices.Equal(got, []PointID{a}) {
		t.Fatalf("damaged points %v", got)
	}
}

func TestALostEndOfTheDataFileIsDamage(t *testing.T) {
	for name, reopen := range map[string]bool{"found at open": true, "found by a view": false} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
			a := takePoint(t, s, "vda", 0, 1)
			b := takePoint(t, s, "vda", 1, 2)
			path := filepath.Join(s.dir, "vda.store")
			cut := func() {
				if err := os.Truncate(path, int64(s.disks[1].dataStart()+1)*ClusterSize); err != nil {
					t.Fatal(err)
				}
			}
			if reopen {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				cut()
				s = openTest(t, s.dir, Options{})
			} else {
				cut()
			}
			if _, err := s.OpenView(t.Context(), b, ViewOptions{}); !errors.Is(err, ErrDamaged) {
				t.Fatalf("view of the point that lost data: %v", err)
			}
			if got := damagedPoints(s); !slices.Equal(got, []PointID{b}) {
				t.Fatalf("damaged points %v", got)
			}
			mustRead(t, s, a, modelDisk{0: 1})
			mustRead(t, s, takePoint(t, s, "vda", 1, 3), modelDisk{0: 1, 1: 3})
		})
	}
}

func TestACorruptIndexRecordIsATypedError(t *testing.T) {
	summariesEvery(t, math.MaxUint64) // else the newer point would not need the record
	for _, bucket := range [][]byte{bucketLocs, bucketSums} {
		t.Run(string(bucket), func(t *testing.T) {
			s := newTestStore(t, Options{}, DiskSpec{"vda", 1 << 20})
			a := takePoint(t, s, "vda", 0, 1, 2)
			b := takePoint(t, s, "vda", 0, 3)
			err := s.idx.update(func(tx *bbolt.Tx) error {
				key := entryKey(chunkKey{1, 0}, 1)
				v := slices.Clone(tx.Bucket(bucket).Get(key))
				v[3] ^= 1
				return tx.Bucket(bucket).Put(key, v)
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.OpenView(t.Context(), a, ViewOptions{}); string(bucket) == "locs" && !errors.Is(err, ErrCorruptIndex) {
				t.Errorf("view: %v", err)
			}
			if err := s.CloseView(t.Context(), a); err != nil {
				t.Error(err)
			}
			if _, err := s.Verify(t.Context(), b, VerifyOptions{}); !errors.Is(err, ErrCorruptIndex) {
				t.Errorf("verify: %v", err)
			}
			if r, err := s.Scrub(t.Context(), 1<<30); err != nil || len(r.Bad) != 1 {
				t.Errorf("scrub: %+v, %v", r, err)
			}
			check := func() {
				t.Helper()
				if got := damagedPoints(s); !slices.Equal(got, []PointID{a, b}) {
					t.Errorf("damaged points %v", got)
				}
				// Cluster 0 has a newer version, which is sound.
				if got := s.LatestDamage(1); !slices.Equal(got, []DamagedRange{{"vda", 1, 15}}) {
					t.Errorf("latest damage %v", got)
				}
			}
			check()
			if _, err := s.OpenView(t.Context(), b, ViewOptions{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("view: %v", err)
			}
			want := modelDisk{0: 3, 1: 2}
			if string(bucket) == "locs" {
				want = modelDisk{0: 3}
			}
			mustRead(t, s, b, want)
			sums := make([]Checksum, 1)
			if err := s.Checksums(t.Context(), "vda", 0, sums, FromIndex); err != nil || sums[0].State != ChecksumUnknown {
				t.Errorf("checksums: %+v, %v", sums, err)
			}
			d := begin(t, s)
			writeTags(t, d, "vda", 0, 11, 12)
			if err := d.WriteZeros("vda", 2, 14); err != nil {
				t.Fatal(err)
			}
			c := complete(t, d)
			if got := s.LatestDamage(1); len(got) != 0 {
				t.Errorf("latest damage after everything was sent again: %v", got)
			}
			if err := s.Delete(t.Context(), a, b); err != nil {
				t.Errorf("delete: %v", err)
			}
			mustRead(t, s, c, modelDisk{0: 11, 1: 12})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openTest(t, s.dir, Options{})
			if p := s.Points(); len(p) != 1 || p[0].Damaged {
				t.Errorf("points after reopening: %+v", p)
			}
		})
	}
}

// failingSync fails one sync, as a disk does that lost a write.
type failingSync struct {
	dataFile
	fail *bool
}

func (f failingSync) Datasync() error {
	if *f.fail {
		*f.fail = false
		return unix.EIO
	}
	return f.dataFile.Datasync()
}

func TestDataThatCouldNotBeMadeDurableIsDropped(t *testing.T) {
	fail := false
	s := newTestStore(t, Options{wrapFile: func(f dataFile) dataFile { return failingSync{f, &fail} }}, DiskSpec{"vda", 1 << 20})
	a := takePoint(t, s, "vda", 0, 1)
	d := begin(t, s)
	writeTags(t, d, "vda", 0, 2)
	fail = true
	if _, err := d.Complete(context.Background(), PointMeta{}); !errors.Is(err, unix.EIO) {
		t.Fatalf("complete: %v", err)
	}
	if err := d.SaveProgress(t.Context(), Coverage{}); !errors.Is(err, ErrDraftEnded) {
		t.Fatalf("the draft went on: %v", err)
	}
	mustRead(t, s, a, modelDisk{0: 1})
	mustRead(t, s, takePoint(t, s, "vda", 0, 3), modelDisk{0: 3})
	if err := s.fsck(); err != nil {
		t.Fatal(err)
	}
}
