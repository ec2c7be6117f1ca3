package recoverystore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/umbra-dr/umbra/pkg/faultydisk"
)

// lived is a closed store in which there is something of everything, beside the model of what is in it.
func lived(t testing.TB) *shadow {
	t.Helper()
	w := newShadow(t, filepath.Join(t.TempDir(), "store"), faultydisk.Fault{}, 0)
	steps := w.life()
	for i, step := range append(steps[:len(steps)-9], w.progress) {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	return w
}

// indexBytes is how much of its file the index uses.
func indexBytes(t testing.TB, w *shadow) (n int64) {
	t.Helper()
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	err := w.s.idx.view(func(tx *bbolt.Tx) error {
		n = tx.Size()
		return nil
	})
	if err := errors.Join(err, w.close()); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnIndexThatWasCutIsRefusedAndNothingElseIsTouched(t *testing.T) {
	w := lived(t)
	used := indexBytes(t, w)
	path := filepath.Join(w.dir, indexFileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for length := int64(0); length < used; length += 4 << 10 {
		if err := os.WriteFile(path, whole[:length], indexFileMode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), w.dir, Options{ReserveBytes: -1}); !errors.Is(err, ErrCorruptIndex) {
			t.Fatalf("cut to %d bytes: %v", length, err)
		}
	}
	if err := os.WriteFile(path, whole, indexFileMode); err != nil {
		t.Fatal(err)
	}
	w.checkWhatIsLeft()
}

func TestAnIndexThatIsGoneIsNotMadeAnewOverTheDataOfItsPoints(t *testing.T) {
	w := lived(t)
	path := filepath.Join(w.dir, indexFileName)
	if err := os.Rename(path, path+".lost"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), w.dir, Options{ReserveBytes: -1}); !errors.Is(err, ErrCorruptIndex) {
		t.Fatalf("without its index the store opens with %v", err)
	}
	if err := os.Rename(path+".lost", path); err != nil {
		t.Fatal(err)
	}
	if err := w.open(); err != nil {
		t.Fatal(err)
	}
	w.checkAll()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.close(), Remove(w.dir)); err != nil {
		t.Fatalf("it cannot be removed: %v", err)
	}
}
