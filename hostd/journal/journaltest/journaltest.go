// Package journaltest has the journals that earlier versions of hostd wrote, so that every package with records in them can see that it
// still reads them, to the last field.
//
// The journals are in testdata: unversioned.zip was written by the last hostd before journals had a version, with one record from
// before records had seals; version-1.zip is the same, opened once by the first hostd that gave it one. They are never made anew. A
// version that writes something else adds a journal, made by that version's own code, with each field of its records set in
// at least one of them.
package journaltest

import (
	"archive/zip"
	"bytes"
	"embed"
	"errors"
	"io/fs"
	"os"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/umbra-dr/umbra/hostd/journal"
)

//go:embed testdata
var journals embed.FS

// EachEarlier runs the check on a copy of each journal.
func EachEarlier(t *testing.T, check func(t *testing.T, j *journal.Journal)) {
	t.Helper()
	names, err := fs.Glob(journals, "testdata/*.zip")
	if err != nil || len(names) == 0 {
		t.Fatalf("there are %d journals: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			j, err := journal.Open(unpack(t, name))
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := j.Close(); err != nil {
					t.Error(err)
				}
			}()
			check(t, j)
		})
	}
}

func unpack(t *testing.T, name string) (dir string) {
	t.Helper()
	packed, err := journals.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	files, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	dir = t.TempDir()
	if err := errors.Join(err, os.CopyFS(dir, files)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Records checks that the records of one kind are these, by their names.
func Records[T any](t *testing.T, kind journal.Kind, want map[string]T) {
	t.Helper()
	EachEarlier(t, func(t *testing.T, j *journal.Journal) {
		got, err := journal.All[T](j, kind)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
			t.Error(diff)
		}
	})
}
