package recoverystore

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// smallFileSystem mounts a tmpfs of the given size.
func smallFileSystem(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill writes and saves until there is no space.
func fill(t *testing.T, s *Store, d *Draft) {
	t.Helper()
	for c := uint64(0); ; c++ {
		err := d.WriteClusters("vda", 100+c, clusterOf(uint32(c+1000), ClusterSize), nil)
		if err == nil && c%16 == 15 {
			err = d.SaveProgress(t.Context(), Coverage{})
		}
		if errors.Is(err, ErrNoSpace) {
			return
		}
		if err != nil || c > 2000 {
			t.Fatalf("cluster %d: %v", c, err)
		}
	}
}

func TestAFullFileSystemHarmsNoPoint(t *testing.T) {
	for name, reserve := range map[string]int64{"with a reserve": 4 << 20, "to the last byte": -1} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(smallFileSystem(t, "48m"), "store")
			open := func() *Store {
				t.Helper()
				s, err := Open(t.Context(), dir, Options{ReserveBytes: reserve})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			s := open()
			defer func() { _ = s.Close() }()
			if err := s.EnsureDisks(t.Context(), []DiskSpec{{"vda", 1 << 30}}); err != nil {
				t.Fatal(err)
			}
			a := takePoint(t, s, "vda", 0, 1, 2, 3)
			b := takePoint(t, s, "vda", 0, 4)
			d := begin(t, s)
			fill(t, s, d)
			if reserve > 0 {
				if err := s.Delete(t.Context(), a); err != nil {
					t.Fatalf("delete with the reserve left: %v", err)
				}
				mustRead(t, s, b, modelDisk{0: 4, 1: 2, 2: 3})
			}
			if err := d.Abandon(); err != nil {
				t.Fatal(err)
			}
			if err := s.DiscardDraft(t.Context()); err != nil {
				t.Fatalf("discard: %v", err)
			}
			if err := s.fsck(); err != nil {
				t.Fatal(err)
			}
			mustRead(t, s, b, modelDisk{0: 4, 1: 2, 2: 3})
			mustRead(t, s, takePoint(t, s, "vda", 1, 5), modelDisk{0: 4, 1: 5, 2: 3})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
			mustRead(t, s, b, modelDisk{0: 4, 1: 2, 2: 3})
		})
	}
}
