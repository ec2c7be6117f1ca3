package shadowserver

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// damage changes bytes of the first point's data behind the store's back.
func (w *world) damage(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(w.replica.dir(), "vda*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("data files of vda: %v, %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	// The first point's only cluster of this disk begins with the bytes 1, 2, 3.
	block := make([]byte, recoverystore.ClusterSize)
	for at := int64(0); at < info.Size(); at += recoverystore.ClusterSize {
		if _, err := f.ReadAt(block[:3], at); err == nil && string(block[:3]) == "\x01\x02\x03" {
			if _, err := f.WriteAt([]byte("damage"), at+1000); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("the cluster was not found")
}

func (w *world) points() []recoverystore.Point { return w.replica.store.Points() }

func TestDamageIsFoundByTheScanAndRemembered(t *testing.T) {
	inBubble(t, 1, func(t *testing.T, w *world) {
		w.damage(t)
		s := scan{store: w.replica.store, point: w.points()[0].ID}
		if err := s.run(context.Background(), clock.System, DefaultScanBeforeBoot); err == nil {
			t.Fatal("the scan found nothing")
		}
		if !w.points()[0].Damaged {
			t.Error("the damage is not remembered")
		}
	})
}
