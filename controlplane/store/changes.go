package store

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Changes is what happened to pairs between two revisions.
type Changes struct {
	// Changed are the ids of pairs that are new or different, sorted. One that was deleted and made again is here.
	Changed []string
	// Deleted are the pairs that are gone, sorted by id.
	Deleted []Deleted
	// Revision is the revision that the changes lead to.
	Revision int64
}

// Deleted is a pair that is gone.
type Deleted struct{ ID, UID string }

// ChangesSince compares the pairs at an earlier revision with the present ones: exactly, since etcd keeps both. A
// revision that etcd has compacted, or never had, is ErrCompacted. It reads the keys of all pairs twice, so it is for
// clients that come back and not for every beat.
func (s *Store) ChangesSince(ctx context.Context, revision int64) (Changes, error) {
	if revision < 1 {
		return Changes{}, fmt.Errorf("changes since revision %d: %w", revision, ErrCompacted)
	}
	now, present, err := s.pairKeys(ctx, 0)
	if err != nil {
		return Changes{}, fmt.Errorf("changes since revision %d: %w", revision, err)
	}
	_, past, err := s.pairKeys(ctx, revision)
	if err != nil {
		return Changes{}, fmt.Errorf("changes since revision %d: %w", revision, err)
	}
	changes := Changes{Revision: now}
	still := make(map[string]bool, len(present))
	for _, kv := range present {
		still[string(kv.Key)] = true
		if kv.ModRevision > revision {
			changes.Changed = append(changes.Changed, strings.TrimPrefix(string(kv.Key), pairs))
		}
	}
	for _, kv := range past {
		if still[string(kv.Key)] {
			continue
		}
		gone, err := s.deletedSince(ctx, string(kv.Key), revision)
		if err != nil {
			return Changes{}, fmt.Errorf("changes since revision %d: %w", revision, err)
		}
		changes.Deleted = append(changes.Deleted, gone)
	}
	return changes, nil
}

// deletedSince reads the pair as it was at the revision, at which it was there.
func (s *Store) deletedSince(ctx context.Context, key string, revision int64) (Deleted, error) {
	response, err := s.client.Get(ctx, key, clientv3.WithRev(revision))
	if err != nil {
		return Deleted{}, translate(err)
	}
	if len(response.Kvs) == 0 {
		return Deleted{ID: strings.TrimPrefix(key, pairs)}, nil
	}
	entry, err := decodeEntry(response.Kvs[0])
	if err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: entry.Record.Pair.ID, UID: entry.Record.Pair.UID}, nil
}

// pairKeys reads the keys of all pairs, with their revisions and without values, at a revision; 0 means now.
func (s *Store) pairKeys(ctx context.Context, revision int64) (int64, []*mvccpb.KeyValue, error) {
	return s.pages(ctx, revision, clientv3.WithKeysOnly())
}

// listPage is how many pairs are read from etcd at once.
const listPage = 1000

// pages reads the pairs at one revision, page by page; revision 0 means now. It returns the revision.
func (s *Store) pages(ctx context.Context, revision int64, options ...clientv3.OpOption) (int64, []*mvccpb.KeyValue, error) {
	var all []*mvccpb.KeyValue
	from, end := pairs, clientv3.GetPrefixRangeEnd(pairs)
	for {
		page := append(slices.Clone(options), clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(revision))
		response, err := s.client.Get(ctx, from, page...)
		if err != nil {
			return 0, nil, fmt.Errorf("list pairs: %w", translate(err))
		}
		if revision == 0 {
			revision = response.Header.Revision
		}
		all = append(all, response.Kvs...)
		if !response.More {
			return revision, all, nil
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}
