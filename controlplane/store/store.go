// Package store keeps the control plane's records in etcd: DR pairs with their newest operation, the history of
// operations, the memory of request ids, and what is worth keeping of hosts.
//
// It promises:
//   - A pair is only ever written by compare-and-swap on its etcd revision, in one transaction with everything that
//     belongs to the change. So any number of control planes may work on the same cluster, and a crash leaves either
//     the whole change or none of it.
//   - A request id takes effect at most once, also when it arrives twice at the same moment at two control planes.
//   - A server, named by its host and UUID, is protected by at most one pair.
//   - A Cache holds, after a while without changes, exactly what etcd holds.
//
// Values are JSON in an envelope with a version. A value of a newer version is refused with *VersionError rather than
// misread. A Store and a Cache are safe for concurrent use.
package store

import (
	"context"
	"fmt"
	"log/slog"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// Store reads and writes records. It holds no state of its own but the client.
type Store struct {
	client *clientv3.Client
	log    *slog.Logger
}

// New returns a store on the cluster that the client is connected to. The caller closes the client.
func New(client *clientv3.Client, log *slog.Logger) *Store {
	return &Store{client: client, log: log}
}

// Entry is a stored record. What it points to is shared: do not change it.
type Entry struct {
	Record drpair.Record
	// Revision is the etcd revision at which the pair was last written.
	Revision int64
}

// Pair reads a pair with its newest operation. The read is linearizable. An unknown id is ErrNotFound.
func (s *Store) Pair(ctx context.Context, id string) (Entry, error) {
	response, err := s.client.Get(ctx, pairKey(id))
	if err != nil {
		return Entry{}, fmt.Errorf("read pair %s: %w", id, translate(err))
	}
	if len(response.Kvs) == 0 {
		return Entry{}, fmt.Errorf("pair %s: %w", id, ErrNotFound)
	}
	return decodeEntry(response.Kvs[0])
}

// ETag is the opaque version of a pair that callers send back. It changes with every stored change, and never
// repeats, also when the id of a deleted pair is used again.
func ETag(p drpair.Pair) string { return fmt.Sprintf(`"%s-%d"`, p.UID, p.Generation) }
