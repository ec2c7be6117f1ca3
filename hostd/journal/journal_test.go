package journal_test

import (
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
