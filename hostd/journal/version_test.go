package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/hostd/journal"
)

// kept makes a journal with a record in it, and returns its folder and its file.
func kept(t *testing.T) (dir, file string) {
	t.Helper()
	dir = t.TempDir()
	j := open(t, dir)
	if err := errors.Join(journal.Save(j, journal.Replica, "web", record{7}), j.Close()); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, "journal.db")
}

// alter changes the file behind the journal's back.
func alter(t *testing.T, file string, change func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(change), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// sealedVersion is a version as a hostd writes it.
func sealedVersion(version string) string {
	sum := crc32.Checksum([]byte("format/version\n"+version), crc32.MakeTable(crc32.Castagnoli))
	return fmt.Sprintf("%s\n%08x", version, sum)
}

func stampedOf(t *testing.T, file string) (stamp []byte) {
	t.Helper()
	alter(t, file, func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte("format")); b != nil {
			stamp = bytes.Clone(b.Get([]byte("version")))
		}
		return nil
	})
	return stamp
}

func TestAJournalSaysItsVersion(t *testing.T) {
	_, file := kept(t)
	version, _, _ := bytes.Cut(stampedOf(t, file), []byte("\n"))
	if string(version) != fmt.Sprint(journal.Version) {
		t.Errorf("it says %q", version)
	}
}

// A hostd from before journals had versions has written it, or is gone back to afterwards: it needs its own five buckets, and
// passes over a sixth.
func TestAJournalWithoutAVersionIsReadAsItIsAndStamped(t *testing.T) {
	dir, file := kept(t)
	alter(t, file, func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("format")) })
	j := open(t, dir)
	got, found, err := journal.Load[record](j, journal.Replica, "web")
	if err != nil || !found || got != (record{7}) {
		t.Errorf("%v, %v, %v", got, found, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if len(stampedOf(t, file)) == 0 {
		t.Error("it still has no version")
	}
}

// With a name that is not known in it, what is missing was altered.
func TestAJournalWhoseVersionsNameIsDamagedIsNotTakenForOneWithout(t *testing.T) {
	dir, file := kept(t)
	alter(t, file, func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("gormat"))
		return errors.Join(err, tx.DeleteBucket([]byte("format")))
	})
	if _, err := journal.Open(dir); !errors.Is(err, journal.ErrCorrupt) {
		t.Errorf("opened with %v", err)
	}
}

func TestAVersionThatMakesNoSenseIsDamage(t *testing.T) {
	_, file := kept(t)
	stamp := stampedOf(t, file)
	for _, value := range []string{"", "1", "2", "0" + string(stamp[1:]), strings.ToUpper(string(stamp)) + " ", sealedVersion("0"), sealedVersion(`"2"`)} {
		dir, file := kept(t)
		alter(t, file, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("format")).Put([]byte("version"), []byte(value)) })
		if _, err := journal.Open(dir); !errors.Is(err, journal.ErrCorrupt) {
			t.Errorf("version %q: opened with %v", value, err)
		}
	}
}

func TestAJournalOfANewerVersionIsRefusedAndLeftAsItWas(t *testing.T) {
	dir, file := kept(t)
	alter(t, file, func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("a kind of tomorrow"))
		return errors.Join(err, tx.DeleteBucket([]byte("replica")),
			tx.Bucket([]byte("format")).Put([]byte("version"), []byte(sealedVersion(fmt.Sprint(journal.Version+1)))))
	})
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = journal.Open(dir)
	if !errors.Is(err, journal.ErrNewer) || errors.Is(err, journal.ErrCorrupt) {
		t.Fatalf("opened with %v", err)
	}
	for _, says := range []string{fmt.Sprintf("version %d", journal.Version+1), fmt.Sprintf("up to %d", journal.Version), "start the newer hostd"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("%q does not say %q", err, says)
		}
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file is another one, %v", err)
	}
}
