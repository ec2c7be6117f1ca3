package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const mode = 0o600

func mustOpen(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), path, mode, bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustWrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, mode); err != nil {
		t.Fatal(err)
	}
}

// fill makes a database with everything in it that bbolt has a page for: branches, leaves, values longer than a page, a bucket
// inside an entry, and a list of free pages.
func fill(t *testing.T, path string) {
	t.Helper()
	db := mustOpen(t, path)
	put := func(bucket string, n, bytes int) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte(bucket))
			for i := 0; err == nil && i < n; i++ {
				err = b.Put(fmt.Appendf(nil, "key%04d", i), []byte(strings.Repeat("v", bytes)))
			}
			return err
		}
	}
	for _, change := range []func(*bbolt.Tx) error{
		put("many", 250, 10), put("long", 2, 5000), put("tiny", 1, 8), put("gone", 60, 100),
		func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte("gone")) },
		put("many", 20, 11),
	} {
		if err := db.Update(change); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// count reads everything.
func count(db *DB) (n int, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, v []byte) error {
				n++
				_ = string(v)
				return nil
			})
		})
	})
	return n, err
}

// Whatever a crash leaves of a database that was being made lies under another name, and the next Open makes it anew.
func TestADatabaseWhoseMakingWasCutShortIsMadeAnew(t *testing.T) {
	made := filepath.Join(t.TempDir(), "made.db")
	if err := mustOpen(t, made).Close(); err != nil {
		t.Fatal(err)
	}
	whole := mustRead(t, made)
	for _, length := range []int{0, 1, 100, os.Getpagesize(), len(whole) - 1, len(whole)} {
		path := filepath.Join(t.TempDir(), "index.db")
		mustWrite(t, path+newSuffix+"123", whole[:length])
		if err := mustOpen(t, path).Close(); err != nil {
			t.Fatal(err)
		}
		if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
			t.Errorf("cut at %d bytes: %d files, %v; want the database alone", length, len(files), err)
		}
	}
}

// Two processes that make it at once: the one that comes second leaves the database of the first alone.
func TestADatabaseThatIsThereIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	fill(t, path)
	before := mustRead(t, path)
	if err := create(path, mode); err != nil {
		t.Fatalf("another process was quicker: %v", err)
	}
	if string(before) != string(mustRead(t, path)) {
		t.Fatal("the database that was there is not the same any more")
	}
}

func TestOneProcessHasTheDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	db := mustOpen(t, path)
	if _, err := Open(t.Context(), path, mode, bbolt.Options{}); !errors.Is(err, berrors.ErrTimeout) {
		t.Errorf("a second Open: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, path).Close(); err != nil {
		t.Fatal(err)
	}
}

// filled is a closed database with something in it, its bytes, and what the newest of its states says of them.
func filled(t *testing.T) (path string, whole []byte, m meta) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "index.db")
	fill(t, path)
	whole = mustRead(t, path)
	m, _, err := newestMeta(whole)
	if err != nil {
		t.Fatal(err)
	}
	return path, whole, m
}

// bbolt would end the process at some of these, and never return at others.
func TestADatabaseThatWasCutIsRefused(t *testing.T) {
	path, whole, m := filled(t)
	for length := 0; length < int(m.pages*m.pageSize); length += 1024 {
		mustWrite(t, path, whole[:length])
		if _, err := Open(t.Context(), path, mode, bbolt.Options{}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut at %d bytes: %v", length, err)
		}
	}
}

// Structure is all of a page but keys and values. It has no checksum, and needs none.
func TestEveryFlippedBitOfAPagesStructureIsNoticed(t *testing.T) {
	_, whole, m := filled(t)
	kinds := map[uint16]int{}
	for first := uint64(metaPages) * m.pageSize; first < m.pages*m.pageSize; {
		p := page(whole[first:])
		bytes := pageHeaderBytes
		switch p.kind() {
		case leafPage, branchPage:
			bytes += p.count() * elementBytes
		case freeListPage:
			bytes += p.count() * idBytes
		}
		if free(t, whole, m, p.id()) {
			bytes = 0
		}
		for bit := range bytes * 8 {
			p[bit/8] ^= 1 << (bit % 8)
			_, err := checkPages(whole)
			p[bit/8] ^= 1 << (bit % 8)
			if err == nil && !ofContent(p, bit) {
				t.Errorf("page %d of kind %x: bit %d is not noticed", p.id(), p.kind(), bit)
			} else if err != nil && !errors.Is(err, ErrCorrupt) {
				t.Errorf("page %d, bit %d: %v", p.id(), bit, err)
			}
			kinds[p.kind()]++
		}
		first += (1 + p.overflow()) * m.pageSize
	}
	if kinds[leafPage] == 0 || kinds[branchPage] == 0 || kinds[freeListPage] == 0 {
		t.Errorf("bits flipped by kind of page: %v", kinds)
	}
}

func free(t *testing.T, b []byte, m meta, id uint64) bool {
	t.Helper()
	ids, err := page(b[m.free*m.pageSize:]).freeIDs()
	if err != nil {
		t.Fatal(err)
	}
	for ; len(ids) > 0; ids = ids[idBytes:] {
		if binary.NativeEndian.Uint64(ids) == id {
			return true
		}
	}
	return false
}

// ofContent says whether the bit is of what the user has to check: the lengths of a page's last key and value, since nothing
// lies behind them; and what makes a bucket inside an entry a value, since then a bucket is missing.
func ofContent(p page, bit int) bool {
	at := bit/8 - pageHeaderBytes
	list, err := p.elements()
	if err != nil || at < 0 || p.kind() != leafPage {
		return err == nil && at >= 0 && p.kind() == branchPage && at/elementBytes == len(list)-1
	}
	e := list[at/elementBytes]
	insideEntry := e.bucket && binary.NativeEndian.Uint64(e.value) == 0
	return at/elementBytes == len(list)-1 && at%elementBytes >= 8 || insideEntry && at%elementBytes == 0
}

// Whatever Open lets through bbolt can read: it ends, and finds as many entries as there were.
func TestADatabaseOfWhichABitHasFlippedIsRefusedOrReadToItsEnd(t *testing.T) {
	path, whole, m := filled(t)
	db := mustOpen(t, path)
	want, err := count(db)
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	refused, read := 0, 0
	for bit := 0; bit < len(whole)*8; bit += 1009 {
		whole[bit/8] ^= 1 << (bit % 8)
		mustWrite(t, path, whole)
		db, err := Open(t.Context(), path, mode, bbolt.Options{})
		switch {
		case errors.Is(err, ErrCorrupt):
			refused++
		case err != nil:
			t.Errorf("bit %d: %v", bit, err)
		default:
			read++
			// A meta page that is not whole gives way to the one before.
			if n, err := count(db); err != nil || n != want && !db.Behind() {
				t.Errorf("bit %d: %d entries of %d, %v", bit, n, want, err)
			}
			if db.Behind() && bit/8 > int(m.pageSize)*metaPages {
				t.Errorf("bit %d: behind", bit)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
		whole[bit/8] ^= 1 << (bit % 8)
	}
	if refused == 0 || read == 0 {
		t.Errorf("%d refused, %d read", refused, read)
	}
}

// The file becomes shorter while it is open: an error, and nobody waits for ever.
func TestDamageDuringUseEndsTheUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	fill(t, path)
	db := mustOpen(t, path)
	if err := os.Truncate(path, int64(os.Getpagesize())*metaPages); err != nil {
		t.Fatal(err)
	}
	write := func() error {
		return db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte("many")).Put([]byte("key"), nil) })
	}
	if err := write(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("write: %v", err)
	}
	if _, err := count(db); !errors.Is(err, ErrCorrupt) {
		t.Errorf("read: %v", err)
	}
	if err := write(); !errors.Is(err, ErrCorrupt) {
		t.Errorf("write again: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(t.Context(), path, mode, bbolt.Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("open again: %v", err)
	}
}

// What bbolt itself writes is never refused.
func TestASoundDatabaseIsNeverRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "index.db")
	r := rand.New(rand.NewPCG(1, 1))
	db := mustOpen(t, path)
	for range 60 {
		err := db.Update(func(tx *bbolt.Tx) error {
			name := fmt.Appendf(nil, "bucket%d", r.IntN(4))
			if r.IntN(20) == 0 {
				if err := tx.DeleteBucket(name); !errors.Is(err, berrors.ErrBucketNotFound) {
					return err
				}
			}
			b, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			b.FillPercent = 0.1 + 0.9*r.Float64()
			for range r.IntN(60) {
				key := fmt.Appendf(nil, "%0*d", 1+r.IntN(200), r.IntN(500))
				if r.IntN(3) == 0 {
					err = b.Delete(key)
				} else {
					err = b.Put(key, make([]byte, r.IntN(1+r.IntN(1+r.IntN(20000)))))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checkPages(mustRead(t, path)); err != nil {
			t.Fatal(err)
		}
		if r.IntN(10) == 0 {
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			db = mustOpen(t, path)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// mappedBytes is how much of a file is in this process's memory.
func mappedBytes(t *testing.T, path string) (sum int64) {
	t.Helper()
	var of bool
	for line := range strings.Lines(string(mustRead(t, "/proc/self/smaps"))) {
		var kib int64
		if fields := strings.Fields(line); strings.Contains(fields[0], "-") {
			of = fields[len(fields)-1] == path
		} else if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kib); n == 1 && of {
			sum += kib << 10
		}
	}
	return sum
}

func TestAPassOverALargeFileNeedNotKeepItInMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large.db")
	db := mustOpen(t, path)
	value := make([]byte, 1<<20)
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("b"))
		for i := 0; err == nil && i < 100; i++ {
			value[0] = byte(i)
			err = b.Put(fmt.Appendf(nil, "key%04d", i), bytes.Clone(value))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = mustOpen(t, path)
	defer db.Close()
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("b")).ForEach(func(key, v []byte) error {
			var sum int
			for _, b := range v {
				sum += int(b)
			}
			before := mappedBytes(t, path)
			if err := GiveBack(tx); err != nil {
				return err
			}
			if after := mappedBytes(t, path); before < 1<<20 || after > 64<<10 {
				t.Errorf("%d bytes of the file are in memory, were %d before", after, before)
			}
			if want := fmt.Sprintf("key%04d", sum); string(key) != want {
				t.Errorf("key %s with the value of %s", key, want)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
