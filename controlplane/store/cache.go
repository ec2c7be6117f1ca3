package store

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

const (
	// removedMax is how many removed pairs a cache remembers the uid of.
	removedMax = 10_000
	// progressEvery is how often a cache that is waited for asks how far it has come.
	progressEvery = 50 * time.Millisecond
)

// Cache holds all pairs with their newest operations in memory, as of Revision, which follows etcd within moments.
// Entries that it returns are shared: do not change what they point to.
type Cache struct {
	store *Store
	clock clock.Clock
	log   *slog.Logger
	ready chan struct{}
	feed  feed.Feed[string]

	mu         sync.RWMutex
	revision   int64
	advanced   chan struct{} // closed, and replaced, when the revision rises
	entries    map[string]Entry
	ids        []string // sorted; replaced and never changed in place
	operations map[string]string
	byHost     map[string]map[string]struct{}
	removed    map[string]string
	removedIDs []string // in the order of removal, at most removedMax
}

// NewCache returns an empty cache. Run fills it.
func NewCache(store *Store, clk clock.Clock, log *slog.Logger) *Cache {
	return &Cache{
		store: store, clock: clk, log: log, ready: make(chan struct{}), advanced: make(chan struct{}), entries: map[string]Entry{},
		operations: map[string]string{}, byHost: map[string]map[string]struct{}{}, removed: map[string]string{},
	}
}

// Ready is closed when the cache has been filled for the first time. Before that it looks empty.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// Feed tells the ids of pairs that have changed, have a changed operation, or are gone. When Revision is R, every
// change up to R has been published.
func (c *Cache) Feed() *feed.Feed[string] { return &c.feed }

// Revision is the etcd revision that the cache has reached.
func (c *Cache) Revision() int64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}

// Reach returns when the cache holds everything up to that revision of etcd, which must have been there. Other control
// planes may have acted on it already. Errors: the context's.
func (c *Cache) Reach(ctx context.Context, revision int64) error {
	ask := c.clock.NewTicker(progressEvery)
	defer ask.Stop()
	for {
		c.mu.RLock()
		reached, advanced := c.revision >= revision, c.advanced
		c.mu.RUnlock()
		if reached {
			return nil
		}
		// A watch of which no pair changes does not learn what it has reached unless it asks, and gets no answer while
		// it is behind. What fails is asked again.
		_ = c.store.client.RequestProgress(clientv3.WithRequireLeader(ctx))
		select {
		case <-advanced:
		case <-ask.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the cache of pairs to reach revision %d: %w", revision, context.Cause(ctx))
		}
	}
}

// Get returns a pair.
func (c *Cache) Get(id string) (Entry, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	entry, ok := c.entries[id]
	return entry, ok
}

// List returns all pairs, sorted by id. It copies them; to look at some, use After.
func (c *Cache) List() []Entry { return slices.Collect(c.After("")) }

// After yields the pairs whose ids sort after the given one, in order, each as it is when it is yielded. The cache is
// not locked meanwhile.
func (c *Cache) After(id string) iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		c.mu.RLock()
		ids := c.ids
		c.mu.RUnlock()
		start, found := slices.BinarySearch(ids, id)
		if found {
			start++
		}
		for _, id := range ids[start:] {
			if entry, ok := c.Get(id); ok && !yield(entry) {
				return
			}
		}
	}
}

// ByHost returns the pairs of which the host is main or shadow host, sorted by id.
func (c *Cache) ByHost(host string) []Entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids := make([]string, 0, len(c.byHost[host]))
	for id := range c.byHost[host] {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	entries := make([]Entry, len(ids))
	for i, id := range ids {
		entries[i] = c.entries[id]
	}
	return entries
}

// Operation returns an operation that is the newest of its pair. Older ones are only in the store.
func (c *Cache) Operation(id string) (drpair.Operation, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	entry, ok := c.entries[c.operations[id]]
	if !ok || entry.Record.Operation == nil {
		return drpair.Operation{}, false
	}
	return *entry.Record.Operation, true
}

// Removed returns the uid of a pair that was removed while this cache looked on, if that was not long ago.
func (c *Cache) Removed(id string) (uid string, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	uid, ok = c.removed[id]
	return uid, ok
}
