package embedded

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Nobody can disarm the alarm of a node that listens on nothing: without this it would refuse every write for ever.
func TestANodeThatHasReachedItsQuotaWorksAgainAfterARestart(t *testing.T) {
	const quota = 16 << 20
	directory, log := t.TempDir(), slog.New(slog.NewTextHandler(t.Output(), nil))
	client, stop, err := start(t.Context(), directory, log, quota)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "kept", "value"); err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", 1<<20)
	for written := 0; err == nil; written += len(filler) {
		if written > 4*quota {
			t.Fatal("it takes more than its quota")
		}
		_, err = client.Put(t.Context(), "filler", filler)
	}
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("it is full, and says %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	client, stop, err = start(t.Context(), directory, log, quota)
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if _, err := client.Put(t.Context(), "filler", filler); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	}
	if kept, err := client.Get(t.Context(), "kept"); err != nil || len(kept.Kvs) != 1 {
		t.Errorf("what was stored is %v, %v", kept, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
