package recoverystore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzADamagedIndexNeverListsWrongData changes some bytes of the index of a store that has lived, opens what is left, and reads
// everything. Whatever Open lets through neither hangs nor panics, and a point that can be opened holds what it held.
func FuzzADamagedIndexNeverListsWrongData(f *testing.F) {
	w := lived(f)
	used := indexBytes(f, w)
	whole, err := os.ReadFile(filepath.Join(w.dir, indexFileName))
	if err != nil {
		f.Fatal(err)
	}
	files := map[string][]byte{}
	for _, name := range []string{"vda.store", "vdb.store"} {
		if files[name], err = os.ReadFile(filepath.Join(w.dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	for page := int64(0); page < used; page += 4096 {
		f.Add(uint32(page+10), byte(1), uint32(0), byte(0))
		f.Add(uint32(page+40), byte(4), uint32(page+301), byte(8))
	}
	f.Fuzz(func(t *testing.T, at uint32, change byte, at2 uint32, change2 byte) {
		index := append([]byte(nil), whole...)
		index[int64(at)%used] ^= change
		index[int64(at2)%used] ^= change2
		dir := t.TempDir()
		for name, content := range files {
			if err := writeSparse(filepath.Join(dir, name), content); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, indexFileName), index, indexFileMode); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), dir, Options{ReserveBytes: -1, noIndexSync: true})
		if err != nil {
			if !errors.Is(err, ErrCorruptIndex) && !errors.Is(err, ErrFormat) {
				t.Errorf("open: %v", err)
			}
			return
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}()
		readEverything(t, s, w.points)
	})
}

func readEverything(t *testing.T, s *Store, want map[PointID]modelState) {
	t.Helper()
	for _, p := range s.Points() {
		if _, err := s.Point(p.ID); err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrCorruptIndex) {
			t.Errorf("point %s: %v", p.ID, err)
		}
		r, err := s.Verify(t.Context(), p.ID, VerifyOptions{})
		if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrCorruptIndex) {
			t.Errorf("verify %s: %v", p.ID, err)
		}
		v, err := s.OpenView(t.Context(), p.ID, ViewOptions{})
		if err != nil || len(r.Bad) > 0 {
			continue
		}
		if want[p.ID] == nil {
			continue // of before the last transaction, when a meta page was hit
		}
		for _, d := range v.Disks {
			if err := compareView(d, want[p.ID][d.Name]); err != nil {
				t.Errorf("point %s is not said to be damaged, disk %s: %v", p.ID, d.Name, err)
			}
		}
	}
	if _, err := s.Scrub(t.Context(), 1<<30); err != nil && !errors.Is(err, ErrCorruptIndex) {
		t.Errorf("scrub: %v", err)
	}
}

// writeSparse writes what is not zero.
func writeSparse(name string, content []byte) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	zero := make([]byte, ClusterSize)
	for at := 0; at < len(content) && err == nil; at += ClusterSize {
		if part := content[at:min(len(content), at+ClusterSize)]; string(part) != string(zero[:len(part)]) {
			_, err = f.WriteAt(part, int64(at))
		}
	}
	return errors.Join(err, f.Truncate(int64(len(content))), f.Close())
}
