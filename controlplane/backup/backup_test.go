package backup_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/umbra-dr/umbra/controlplane/backup"
	"github.com/umbra-dr/umbra/controlplane/store"
)

var (
	moment = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	items  = []store.Item{{Key: "pairs/web", Value: []byte("one")}, {Key: "requests/x", Value: []byte{}, Left: time.Hour}}
)

// contents is what a backup holds.
type contents struct {
	Records []store.Item
	Files   map[string]string
	Modes   map[string]fs.FileMode
}

func read(from []byte) (contents, backup.Header, error) {
	got := contents{Files: map[string]string{}, Modes: map[string]fs.FileMode{}}
	header, err := backup.Read(bytes.NewReader(from), func(item store.Item) error {
		got.Records = append(got.Records, item)
		return nil
	}, func(part backup.Part) error {
		got.Files[part.Name] += string(part.Content)
		got.Modes[part.Name] = part.Mode
		return nil
	})
	return got, header, err
}

func write(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, "v1.2.3", moment)
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if err := w.Record(item); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		if err := w.File(name, 0o600, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestABackupHoldsWhatWasPutIntoIt(t *testing.T) {
	files := map[string]string{"administrator/key.pem": "secret", "empty": "", "long": strings.Repeat("0123456789", 300_000)}
	got, header, err := read(write(t, files))
	if err != nil || header.Version != "v1.2.3" || !header.Time.Equal(moment) {
		t.Fatalf("header %+v, %v", header, err)
	}
	if diff := cmp.Diff(items, got.Records); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(files, got.Files); diff != "" {
		t.Error("files differ")
	}
	if got.Modes["administrator/key.pem"] != 0o600 {
		t.Errorf("modes %v", got.Modes)
	}
}

func TestABackupThatIsNotWholeIsRefused(t *testing.T) {
	whole := write(t, map[string]string{"key": "secret"})
	for n := range len(whole) {
		if _, _, err := read(whole[:n]); !errors.Is(err, backup.ErrDamaged) {
			t.Fatalf("cut at byte %d of %d: %v", n, len(whole), err)
		}
	}
	const gzipHeader = 10 // of it only some bits mean anything
	for n := gzipHeader; n < len(whole); n++ {
		damaged := bytes.Clone(whole)
		damaged[n] ^= 1
		// What makes another number of the format's has to be refused before the checksum can be known.
		if _, _, err := read(damaged); !errors.Is(err, backup.ErrDamaged) && !errors.Is(err, backup.ErrNewer) {
			t.Fatalf("a bit of byte %d is turned: %v", n, err)
		}
	}
	if _, _, err := read(append(bytes.Clone(whole), whole...)); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("twice: %v", err)
	}
}

// The file of the first version. It stays readable for good.
func TestABackupOfTheFirstFormatIsRead(t *testing.T) {
	name := filepath.Join("testdata", "format-1.backup")
	if os.Getenv("UPDATE_TESTDATA") != "" {
		if err := os.WriteFile(name, write(t, map[string]string{"audit.jsonl": "{}\n"}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	got, header, err := read(file)
	if err != nil || header.Format != 1 || len(got.Records) != len(items) || got.Files["audit.jsonl"] != "{}\n" {
		t.Errorf("it holds %+v, %+v, %v", header, got, err)
	}
}

func TestABackupThatLeadsOutOfTheStateFolderIsRefused(t *testing.T) {
	for _, name := range []string{"../evil", "/etc/evil", "a/../../evil"} {
		if _, _, err := read(write(t, map[string]string{name: "x"})); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
