package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
)

// begin is a control plane that lives until the test ends.
func begin(t *testing.T, s *store.Store, id string) *store.Life {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	life, err := s.Begin(ctx, store.ControlPlane{ID: id, Address: id + ":1"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		life.Wait()
	})
	return life
}

func beginSession(t *testing.T, life *store.Life, host, holder string) store.Session {
	t.Helper()
	number, err := life.BeginSession(t.Context(), host, holder, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return store.Session{Host: host, Number: number}
}

func TestAChangeCountsOnlyWhileTheSessionsItRelyOnStand(t *testing.T) {
	s, _ := startStore(t)
	one, two := begin(t, s, "one"), begin(t, s, "two")
	entry := mustCreate(t, s, "p")
	none := store.Session{Host: "a"}
	commit := func(sessions ...store.Session) error {
		change, err := drpair.Apply(entry.Record, drpair.Pause{}, epoch)
		if err != nil {
			t.Fatal(err)
		}
		change.Pair.State, change.Pair.Paused = drpair.InitialSync, false // so that it can be paused again
		stored, err := s.Commit(t.Context(), entry, change, store.RequestKey{}, sessions...)
		if err == nil {
			entry = stored
		}
		return err
	}
	older := beginSession(t, one, "a", "one")
	if err := errors.Join(commit(older), commit(older, store.Session{Host: "b"})); err != nil {
		t.Error(err)
	}
	newer := beginSession(t, two, "a", "two")
	if newer.Number <= older.Number {
		t.Errorf("the newer session has number %d, the older %d", newer.Number, older.Number)
	}
	for name, sessions := range map[string][]store.Session{"older": {older}, "none": {none}, "one of two": {{Host: "b"}, older}} {
		if err := commit(sessions...); !errors.Is(err, store.ErrSession) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(s.EndSession(t.Context(), older), commit(newer)); err != nil {
		t.Errorf("the end of the older session took the newer: %v", err)
	}
	stale := entry
	stale.Revision--
	change, _ := drpair.Apply(entry.Record, drpair.Pause{}, epoch)
	if _, err := s.Commit(t.Context(), stale, change, store.RequestKey{}, newer); !errors.Is(err, store.ErrConflict) {
		t.Errorf("another's change of the pair: %v", err)
	}
	if err := errors.Join(s.EndSession(t.Context(), newer), commit(none)); err != nil {
		t.Error(err)
	}
	if err := commit(newer); !errors.Is(err, store.ErrSession) {
		t.Errorf("a session that has ended: %v", err)
	}
}

func TestWhatAControlPlaneHoldsEndsWithItInOneRevision(t *testing.T) {
	s, client := startStore(t)
	life := begin(t, s, "one")
	beginSession(t, life, "a", "one")
	beginSession(t, life, "b", "one")
	all, revision, err := s.Present(t.Context())
	if err != nil || len(all) != 3 || *all[0].ControlPlane != (store.ControlPlane{ID: "one", Address: "one:1"}) ||
		all[1].Session.Host != "a" || all[1].Session.Holder != "one" || !all[1].Session.Time.Equal(epoch) {
		t.Fatalf("present are %+v, %v", all, err)
	}
	leases, err := client.Leases(t.Context())
	if err != nil || len(leases.Leases) != 1 {
		t.Fatalf("leases: %v, %v", leases, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := client.Revoke(ctx, clientv3.LeaseID(leases.Leases[0].ID)); err != nil {
		t.Fatal(err)
	}
	for changes, err := range s.FollowPresence(ctx, revision) {
		if err != nil || len(changes) != 3 {
			t.Fatalf("the end is told as %+v, %v", changes, err)
		}
		for _, one := range changes {
			if !one.Gone || one.Revision != changes[0].Revision {
				t.Errorf("told of %+v", one)
			}
		}
		break
	}
}
