package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	rebuildDelayMin = 100 * time.Millisecond
	rebuildDelayMax = 5 * time.Second
)

// Run fills the cache and follows etcd until the context ends, and returns nil then. A lost watch, or a history that
// was compacted before it was read, makes it read everything again; readers see the old state until then. A record of
// a newer version is the end: Run returns *VersionError, since this process cannot know what it would do wrong.
func (c *Cache) Run(ctx context.Context) error {
	delay := rebuildDelayMin
	for {
		reached, err := c.follow(ctx)
		if ctx.Err() != nil {
			return nil
		}
		var newer *VersionError
		if errors.As(err, &newer) {
			return fmt.Errorf("fill the cache of pairs: %w", err)
		}
		if reached {
			delay = rebuildDelayMin
		}
		c.log.WarnContext(ctx, "the cache of pairs lost its watch and is read again", "error", err)
		if c.clock.Wait(ctx, delay) != nil {
			return nil
		}
		delay = min(2*delay, rebuildDelayMax)
	}
}

// follow reads everything once and then follows the changes until that fails. reached tells whether it came to
// following.
func (c *Cache) follow(ctx context.Context) (reached bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	revision, kvs, err := c.store.pages(ctx, 0)
	if err != nil {
		return false, err
	}
	if err := c.replace(revision, kvs); err != nil {
		return false, err
	}
	return true, c.watch(ctx, revision+1)
}

func (c *Cache) watch(ctx context.Context, from int64) error {
	options := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithProgressNotify()}
	for response := range c.store.client.Watch(clientv3.WithRequireLeader(ctx), pairs, options...) {
		if err := response.Err(); err != nil {
			return fmt.Errorf("watch pairs: %w", translate(err))
		}
		// The header's revision is etcd's, which may be ahead of the events while the watch catches up.
		revision := response.Header.Revision
		if n := len(response.Events); n > 0 {
			revision = response.Events[n-1].Kv.ModRevision
		}
		if err := c.apply(revision, response.Events); err != nil {
			return err
		}
	}
	return errors.New("watch pairs: the watch has ended")
}

// replace makes the cache hold what was read, and publishes what that changed.
func (c *Cache) replace(revision int64, kvs []*mvccpb.KeyValue) error {
	fresh := make(map[string]Entry, len(kvs))
	for _, kv := range kvs {
		entry, err := decodeEntry(kv)
		if err != nil {
			return err
		}
		fresh[entry.Record.Pair.ID] = entry
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var moved []string
	for id := range c.entries {
		if _, ok := fresh[id]; !ok {
			c.remove(id)
			moved = append(moved, id)
		}
	}
	for id, entry := range fresh {
		if old, ok := c.entries[id]; !ok || old.Revision != entry.Revision {
			c.put(entry)
			moved = append(moved, id)
		}
	}
	c.ids = sortedKeys(c.entries)
	c.advance(revision, moved)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
	return nil
}

// apply makes the cache follow some events, which hold all changes up to revision.
func (c *Cache) apply(revision int64, events []*clientv3.Event) error {
	moved := make([]string, 0, len(events))
	fresh := make(map[string]Entry, len(events))
	for _, event := range events {
		id := strings.TrimPrefix(string(event.Kv.Key), pairs)
		moved = append(moved, id)
		delete(fresh, id)
		if event.Type == clientv3.EventTypePut {
			entry, err := decodeEntry(event.Kv)
			if err != nil {
				return err
			}
			fresh[id] = entry
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range moved {
		_, known := c.entries[id]
		entry, stays := fresh[id]
		switch {
		case stays:
			c.put(entry)
		case known:
			c.remove(id)
		}
		if known != stays {
			c.ids = withOrWithout(c.ids, id, stays)
		}
	}
	c.advance(revision, moved)
	return nil
}

// put stores the entry and its indexes, but for ids. c.mu is held.
func (c *Cache) put(entry Entry) {
	p := entry.Record.Pair
	if _, ok := c.entries[p.ID]; ok {
		c.forget(p.ID)
	}
	c.entries[p.ID] = entry
	if entry.Record.Operation != nil {
		c.operations[entry.Record.Operation.ID] = p.ID
	}
	for _, host := range []string{p.Main.Host, p.Shadow.Host} {
		if c.byHost[host] == nil {
			c.byHost[host] = map[string]struct{}{}
		}
		c.byHost[host][p.ID] = struct{}{}
	}
}

// remove forgets the entry and remembers its uid. c.mu is held.
func (c *Cache) remove(id string) {
	if _, again := c.removed[id]; !again {
		c.removedIDs = append(c.removedIDs, id)
	}
	c.removed[id] = c.entries[id].Record.Pair.UID
	if len(c.removedIDs) > removedMax {
		delete(c.removed, c.removedIDs[0])
		c.removedIDs = c.removedIDs[1:]
	}
	c.forget(id)
}

// forget removes the entry and its indexes, but for ids. c.mu is held.
func (c *Cache) forget(id string) {
	record := c.entries[id].Record
	delete(c.entries, id)
	if record.Operation != nil {
		delete(c.operations, record.Operation.ID)
	}
	for _, host := range []string{record.Pair.Main.Host, record.Pair.Shadow.Host} {
		delete(c.byHost[host], id)
		if len(c.byHost[host]) == 0 {
			delete(c.byHost, host)
		}
	}
}

// advance publishes before the new revision can be seen, so that nobody sees a revision and misses a change. c.mu is
// held.
func (c *Cache) advance(revision int64, moved []string) {
	if len(moved) > 0 {
		c.feed.Publish(moved...)
	}
	if revision > c.revision {
		c.revision = revision
		close(c.advanced)
		c.advanced = make(chan struct{})
	}
}

func sortedKeys(entries map[string]Entry) []string {
	ids := make([]string, 0, len(entries))
	for id := range entries {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// withOrWithout returns a new sorted slice that has, or has not, the id.
func withOrWithout(ids []string, id string, with bool) []string {
	at, found := slices.BinarySearch(ids, id)
	switch {
	case with && !found:
		return slices.Insert(slices.Clone(ids), at, id)
	case !with && found:
		return slices.Delete(slices.Clone(ids), at, at+1)
	default:
		return ids
	}
}
