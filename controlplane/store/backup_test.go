package store_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/store"
)

func TestABackupHoldsWhatIsWorthKeepingAndMarksItWhenItIsRestored(t *testing.T) {
	from, _ := startStore(t)
	record := newRecord("web")
	key := store.RequestKey{Method: "Create", Caller: "ann", ID: "r-1"}
	if _, err := from.Create(t.Context(), record, key); err != nil {
		t.Fatal(err)
	}
	putToken(t, from, "aa", "a")
	if _, err := from.Enroll(t.Context(), shown("aa", 1, 1), subject, epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := from.AppendAudit(t.Context(), store.AuditEvent{ID: store.NewAuditID(epoch), Caller: "ann"}); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Begin(t.Context(), store.ControlPlane{ID: "one"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	var items []store.Item
	if _, err := from.Backup(t.Context(), func(item store.Item) error { items = append(items, item); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if strings.HasPrefix(item.Key, "presence/") || strings.HasPrefix(item.Key, "join-tokens/") {
			t.Errorf("the backup holds %s", item.Key)
		}
	}

	to, client := startStore(t)
	if empty, err := to.Empty(t.Context()); err != nil || !empty {
		t.Fatalf("a new store is empty: %v, %v", empty, err)
	}
	restoration := to.Restore()
	for _, item := range items {
		if err := restoration.Put(t.Context(), item); err != nil {
			t.Fatal(err)
		}
	}
	if err := restoration.End(t.Context()); err != nil || restoration.Pairs != 1 {
		t.Fatalf("%d pairs, %v", restoration.Pairs, err)
	}
	got, err := to.Pair(t.Context(), "web")
	if err != nil || !got.Record.Pair.Restored || got.Record.Pair.UID != record.Pair.UID {
		t.Errorf("the pair is %+v, %v", got.Record.Pair, err)
	}
	if _, found, err := to.Request(t.Context(), key); err != nil || !found {
		t.Errorf("the request is remembered: %v, %v", found, err)
	}
	if response, err := client.Get(t.Context(), "/umbra/requests/", clientv3.WithPrefix()); err != nil || response.Kvs[0].Lease == 0 {
		t.Errorf("the request is kept for good: %v, %v", response, err)
	}
	if events, _, err := to.AuditEvents(t.Context(), 10, ""); err != nil || len(events) != 1 {
		t.Errorf("the audit log is %v, %v", events, err)
	}
	// A certificate that was made after the backup must not be one with the next.
	if identity, err := to.Identity(t.Context(), "host/a"); err != nil || identity.Generation < 100 || identity.Least != 1 {
		t.Errorf("the identity is %+v, %v", identity, err)
	}
	if _, err := to.JudgeJoinToken(t.Context(), shown("aa", 1, 1), subject, epoch); !errors.Is(err, store.ErrBadJoinToken) {
		t.Errorf("a used token: %v", err)
	}
	one, err := to.History(t.Context())
	if two, _ := from.History(t.Context()); err != nil || one == "" || two != "" {
		t.Errorf("the records live as %q and %q, %v", two, one, err)
	}
}

func TestARecordOfANewerControlPlaneIsNotRestored(t *testing.T) {
	s, _ := startStore(t)
	for _, key := range []string{"pairs/web", "operations/x", "identities/host/a"} {
		err := s.Restore().Put(t.Context(), store.Item{Key: key, Value: []byte(`{"version": 99, "value": {}}`)})
		var newer *store.VersionError
		if !errors.As(err, &newer) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestRecordsThatWereRestoredByOtherMeansAreMarked(t *testing.T) {
	s, _ := startStore(t)
	if _, err := s.Create(t.Context(), newRecord("web"), store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
	putToken(t, s, "aa", "a")
	if _, err := s.Admit(t.Context(), "client/ann"); err != nil {
		t.Fatal(err)
	}
	if pairs, err := s.MarkRestored(t.Context()); err != nil || pairs != 1 {
		t.Fatalf("%d pairs, %v", pairs, err)
	}
	got, err := s.Pair(t.Context(), "web")
	if err != nil || !got.Record.Pair.Restored {
		t.Errorf("the pair is %+v, %v", got.Record.Pair, err)
	}
	if _, err := s.Enroll(t.Context(), shown("aa", 1, 1), subject, epoch); !errors.Is(err, store.ErrBadJoinToken) {
		t.Errorf("a token of before: %v", err)
	}
	if admitted, err := s.Admit(t.Context(), "client/ann"); err != nil || admitted.Generation < 100 {
		t.Errorf("admitted as %+v, %v", admitted, err)
	}
}
