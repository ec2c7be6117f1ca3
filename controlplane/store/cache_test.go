package store_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// act is one random thing that somebody does to the pairs.
type act struct {
	Pair int
	Kind string
}

var acts = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) act {
	return act{rapid.IntRange(0, 4).Draw(t, "pair"), rapid.SampledFrom([]string{"create", "pause", "resume", "remove", "compact"}).Draw(t, "kind")}
}), 1, 30)

func TestTheCacheEqualsEtcdAfterConcurrentChangesAndCompactions(t *testing.T) {
	s, client := startStore(t)
	cache := startCache(t, s)
	rapid.Check(t, func(r *rapid.T) {
		scripts := [][]act{acts.Draw(r, "one"), acts.Draw(r, "two")}
		before := cache.Revision()
		var all sync.WaitGroup
		for _, script := range scripts {
			all.Go(func() {
				for _, a := range script {
					if a.Kind == "compact" {
						if now, err := client.Get(t.Context(), "x"); err == nil {
							_, _ = client.Compact(t.Context(), now.Header.Revision)
						}
						continue
					}
					perform(t, s, a)
				}
			})
		}
		all.Wait()
		last := mustCreate(t, s, "last")
		removePair(t, s, last)
		final := mustCreate(t, s, "last")
		waitFor(t, cache, final.Revision)
		for _, entry := range cache.List() {
			stored, err := s.Pair(t.Context(), entry.Record.Pair.ID)
			if err != nil || !reflect.DeepEqual(stored, entry) {
				r.Fatalf("the cache has %+v\nthe store has %+v, %v", entry, stored, err)
			}
			if !slices.ContainsFunc(cache.ByHost("b"), func(e store.Entry) bool { return reflect.DeepEqual(e, entry) }) {
				r.Fatalf("%s is not found by its host", entry.Record.Pair.ID)
			}
		}
		for i := range 5 {
			_, err := s.Pair(t.Context(), pairID(i))
			if _, cached := cache.Get(pairID(i)); cached != !errors.Is(err, store.ErrNotFound) {
				r.Fatalf("pair %d is cached: %v, stored: %v", i, cached, err)
			}
		}
		if len(cache.ByHost("b")) != len(cache.List()) || cache.Revision() < before {
			r.Fatal("the indexes of the cache are not those of its pairs")
		}
		removePair(t, s, final)
	})
}

// perform tries the act; losing a race, or finding nothing to act on, is fine.
func perform(t *testing.T, s *store.Store, a act) {
	if a.Kind == "create" {
		_, _ = s.Create(t.Context(), newRecord(pairID(a.Pair)), store.RequestKey{})
		return
	}
	entry, err := s.Pair(t.Context(), pairID(a.Pair))
	if err != nil {
		return
	}
	event := map[string]drpair.Event{
		"pause": drpair.Pause{}, "resume": drpair.Resume{},
		"remove": drpair.Delete{Request: drpair.Request{OperationID: operationID(a.Pair)}, Force: true},
	}[a.Kind]
	change, err := drpair.Apply(entry.Record, event, epoch)
	if err != nil {
		return
	}
	if _, err := s.Commit(t.Context(), entry, change, store.RequestKey{}); err != nil && !errors.Is(err, store.ErrConflict) {
		t.Errorf("%+v: %v", a, err)
	}
}

func removePair(t *testing.T, s *store.Store, entry store.Entry) store.Entry {
	t.Helper()
	change, err := drpair.Apply(entry.Record, drpair.Delete{Request: drpair.Request{OperationID: operationID(9)}, Force: true}, epoch)
	if err != nil {
		t.Fatal(err)
	}
	removed, err := s.Commit(t.Context(), entry, change, store.RequestKey{})
	if err != nil {
		t.Fatal(err)
	}
	return removed
}

func TestACacheThatStartsAfterACompactionHoldsEverything(t *testing.T) {
	s, client := startStore(t)
	mustCreate(t, s, "a")
	entry := mustCreate(t, s, "b")
	removePair(t, s, entry)
	if _, err := client.Compact(t.Context(), entry.Revision); err != nil {
		t.Fatal(err)
	}
	cache := startCache(t, s)
	if got := cache.List(); len(got) != 1 || got[0].Record.Pair.ID != "a" {
		t.Fatalf("got %v", got)
	}
}

func TestTheFeedNamesChangedPairsAndTheCacheKnowsTheUIDOfRemovedOnes(t *testing.T) {
	s, _ := startStore(t)
	cache := startCache(t, s)
	changes := cache.Feed().Subscribe()
	defer changes.Close()
	entry := mustCreate(t, s, "a")
	waitFor(t, cache, entry.Revision)
	if got := changes.Take(); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("the feed says %v", got)
	}
	committed, err := s.Commit(t.Context(), entry, failover(t, entry, operationID(3)), store.RequestKey{})
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, cache, committed.Revision)
	if operation, ok := cache.Operation(operationID(3)); !ok || operation.Kind != drpair.KindFailover {
		t.Fatalf("the cached operation is %v, %v", operation, ok)
	}
	committed.Record.Pair.State = drpair.Committed
	removed := removePair(t, s, committed)
	waitFor(t, cache, removed.Revision)
	if uid, ok := cache.Removed("a"); !ok || uid != "uid-of-a" {
		t.Fatalf("the removed pair's uid is %q, %v", uid, ok)
	}
}

func TestChangesSinceARevisionAreExact(t *testing.T) {
	s, client := startStore(t)
	mustCreate(t, s, "same")
	gone := mustCreate(t, s, "gone")
	again := mustCreate(t, s, "again")
	changed := mustCreate(t, s, "changed")
	since := mustCreate(t, s, "as of then").Revision
	removePair(t, s, gone)
	removePair(t, s, again)
	mustCreate(t, s, "again")
	if _, err := s.Commit(t.Context(), changed, failover(t, changed, operationID(1)), store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
	fleeting := mustCreate(t, s, "fleeting")
	removePair(t, s, fleeting)
	last := mustCreate(t, s, "new")

	got, err := s.ChangesSince(t.Context(), since)
	want := store.Changes{Changed: []string{"again", "changed", "new"}, Deleted: []store.Deleted{{ID: "gone", UID: "uid-of-gone"}}, Revision: last.Revision}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, want)
	}
	if _, err := client.Compact(t.Context(), last.Revision); err != nil {
		t.Fatal(err)
	}
	for _, revision := range []int64{0, -1, since, last.Revision + 1000} {
		if _, err := s.ChangesSince(t.Context(), revision); !errors.Is(err, store.ErrCompacted) {
			t.Errorf("since revision %d: %v", revision, err)
		}
	}
}

func TestACacheThatMissedChangesAndACompactionCatchesUpAndPublishesThem(t *testing.T) {
	s, client := startStore(t)
	gone := mustCreate(t, s, "gone")
	changed := mustCreate(t, s, "changed")
	same := mustCreate(t, s, "same")
	cache := store.NewCache(s, clock.System, testLog(t))
	stop := run(t, cache)
	<-cache.Ready()
	waitFor(t, cache, same.Revision)
	stop()

	removePair(t, s, gone)
	if _, err := s.Commit(t.Context(), changed, failover(t, changed, operationID(1)), store.RequestKey{}); err != nil {
		t.Fatal(err)
	}
	last := mustCreate(t, s, "new")
	if _, err := client.Compact(t.Context(), last.Revision); err != nil {
		t.Fatal(err)
	}
	changes := cache.Feed().Subscribe()
	defer changes.Close()
	defer run(t, cache)()
	waitFor(t, cache, last.Revision)
	moved := changes.Take()
	slices.Sort(moved)
	if !slices.Equal(moved, []string{"changed", "gone", "new"}) {
		t.Errorf("published were %v", moved)
	}
	var ids []string
	for _, entry := range cache.List() {
		ids = append(ids, entry.Record.Pair.ID)
	}
	if !slices.Equal(ids, []string{"changed", "new", "same"}) {
		t.Errorf("the cache has %v", ids)
	}
}

func TestTheCacheReachesARevisionThatNoPairHasChangedIn(t *testing.T) {
	s, client := startStore(t)
	cache := startCache(t, s)
	for range 20 {
		entry := mustCreate(t, s, "a")
		other, err := client.Put(t.Context(), "/elsewhere", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := cache.Reach(t.Context(), other.Header.Revision); err != nil {
			t.Fatal(err)
		}
		if got, ok := cache.Get("a"); !ok || got.Revision != entry.Revision || cache.Revision() < other.Header.Revision {
			t.Fatalf("at revision %d it has %+v", cache.Revision(), got)
		}
		if err := cache.Reach(t.Context(), removePair(t, s, entry).Revision); err != nil {
			t.Fatal(err)
		}
		if _, ok := cache.Get("a"); ok {
			t.Fatal("it has a pair that is gone")
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := cache.Reach(ctx, cache.Revision()+100); !errors.Is(err, context.Canceled) {
		t.Errorf("a revision that is not there: %v", err)
	}
}
