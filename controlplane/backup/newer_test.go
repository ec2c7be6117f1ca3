package backup

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/umbra-dr/umbra/controlplane/store"
)

func TestABackupOfANewerControlPlaneIsRefusedWithWhatToDo(t *testing.T) {
	var out bytes.Buffer
	w := &Writer{compressed: gzip.NewWriter(&out), sum: sha256.New()}
	if err := errors.Join(w.write(line{Header: &Header{Format: Format + 1, Version: "v9"}}), w.Close()); err != nil {
		t.Fatal(err)
	}
	_, err := Read(&out, func(store.Item) error { return nil }, func(Part) error { return nil })
	if !errors.Is(err, ErrNewer) || errors.Is(err, ErrDamaged) {
		t.Errorf("it says %v", err)
	}
}
