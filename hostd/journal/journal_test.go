package journal_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/umbra-dr/umbra/hostd/journal"
)

type record struct{ Epoch uint64 }

func TestWhatWasSavedIsThereAfterReopening(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for pair, epoch := range map[string]uint64{"a": 1, "b": 2} {
		if err := journal.Save(j, journal.Replica, pair, record{epoch}); err != nil {
			t.Fatal(err)
		}
	}
	if err := journal.Save(j, journal.Replica, "a", record{7}); err != nil {
		t.Fatal(err)
	}
	if err := journal.Delete(j, journal.Replica, "b"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}

	j = open(t, dir)
	defer func() { _ = j.Close() }()
	got, err := journal.All[record](j, journal.Replica)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]record{"a": {7}}, got); diff != "" {
		t.Error(diff)
	}
	if _, found, err := journal.Load[record](j, journal.Assignments, "a"); found || err != nil {
		t.Errorf("another kind has the record too: found %v, error %v", found, err)
	}
}

func open(t *testing.T, dir string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// bbolt keeps two states, and opens the older one when the page of the newer one is damaged.
func TestNoBitOfTheNewestStatesPageCostsARecord(t *testing.T) {
	const metaAt, metaBytes, numberAt = 16, 64, 16 + 48
	for bit := 0; bit < metaBytes*8; bit += 7 {
		dir := t.TempDir()
		j, err := journal.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(journal.Save(j, journal.Replica, "web", 7), j.Close()); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "journal.db")
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		page := file
		if older := file[os.Getpagesize():]; binary.NativeEndian.Uint64(older[numberAt:]) > binary.NativeEndian.Uint64(file[numberAt:]) {
			page = older
		}
		page[metaAt+bit/8] ^= 1 << (bit % 8)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		if j, err = journal.Open(dir); err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		if got, found, err := journal.Load[int](j, journal.Replica, "web"); err != nil || !found || got != 7 {
			t.Errorf("bit %d: %d, %v, %v", bit, got, found, err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
