package store_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func startStore(t *testing.T) (*store.Store, *clientv3.Client) {
	t.Helper()
	client, stop, err := embedded.Start(t.Context(), t.TempDir(), testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stop etcd: %v", err)
		}
	})
	return store.New(client, testLog(t)), client
}

// startCache returns a filled cache that follows the store until the test ends.
func startCache(t *testing.T, s *store.Store) *store.Cache {
	t.Helper()
	cache := store.NewCache(s, clock.System, testLog(t))
	t.Cleanup(run(t, cache))
	<-cache.Ready()
	return cache
}

// run runs the cache until the returned function is called, which waits for its end.
func run(t *testing.T, cache *store.Cache) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cache.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// waitFor returns when the cache has reached the revision.
func waitFor(t *testing.T, cache *store.Cache, revision int64) {
	t.Helper()
	changes := cache.Feed().Subscribe()
	defer changes.Close()
	for cache.Revision() < revision {
		select {
		case <-changes.C():
		case <-time.After(10 * time.Second):
			t.Fatalf("the cache stays at revision %d, before %d", cache.Revision(), revision)
		}
	}
}

func newRecord(id string) drpair.Record { return recordOf(id, "uuid-of-"+id) }

func recordOf(id, server string) drpair.Record {
	return drpair.New(id, "uid-of-"+id, drpair.Main{Host: "a", Server: id, UUID: server}, drpair.Shadow{Host: "b"}, drpair.DefaultPolicy(), epoch)
}

func mustCreate(t *testing.T, s *store.Store, id string) store.Entry {
	t.Helper()
	entry, err := s.Create(t.Context(), newRecord(id), store.RequestKey{})
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// failover is the change that a failover makes of a pair that has a point.
func failover(t *testing.T, entry store.Entry, operation string) drpair.Change {
	t.Helper()
	record := entry.Record
	record.Pair.HasPoint = true
	event := drpair.Failover{Request: drpair.Request{OperationID: operation}, Point: "p1"}
	change, err := drpair.Apply(record, event, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return change
}

func request(id string, fingerprint byte) store.RequestKey {
	return store.RequestKey{Method: "/m", Caller: "c", ID: id, Fingerprint: [32]byte{fingerprint}}
}

// operationID is like store.NewOperationID, and the same for the same i.
func operationID(i int) string { return fmt.Sprintf("op-%012x-0123456789abcdef", i) }

func pairID(i int) string { return fmt.Sprintf("pair-%d", i) }
