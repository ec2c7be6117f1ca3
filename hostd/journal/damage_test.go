package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/umbra-dr/umbra/hostd/journal"
)

// FuzzADamagedJournalForgetsNothing changes two bytes of a journal: it is refused, or says what was saved.
func FuzzADamagedJournalForgetsNothing(f *testing.F) {
	dir := f.TempDir()
	j, err := journal.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	for _, pair := range []string{"a", "b"} {
		if err := journal.Save(j, journal.Replica, pair, record{41}); err != nil {
			f.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		f.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, "journal.db"))
	if err != nil {
		f.Fatal(err)
	}
	// The first two pages are bbolt's two newest states: one that is damaged gives way to the other.
	pages := 2 * os.Getpagesize()
	for at := 0; at < len(whole)-pages; at += 37 {
		if whole[pages+at] != 0 {
			f.Add(uint32(at), byte(1), uint32(0), byte(0))
		}
	}
	f.Fuzz(func(t *testing.T, at uint32, change byte, at2 uint32, change2 byte) {
		image := append([]byte(nil), whole...)
		image[pages+int(at)%(len(image)-pages)] ^= change
		image[pages+int(at2)%(len(image)-pages)] ^= change2
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal.db"), image, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(dir)
		if errors.Is(err, journal.ErrCorrupt) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = j.Close() }()
		got, err := journal.All[record](j, journal.Replica)
		if err != nil || len(got) != 2 || got["a"] != (record{41}) || got["b"] != (record{41}) {
			t.Errorf("it says %v, %v", got, err)
		}
	})
}
