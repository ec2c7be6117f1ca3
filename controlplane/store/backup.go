package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

const (
	// writesPerTransaction is below etcd's default limit of 128 operations in a transaction.
	writesPerTransaction = 100
	// leaseStep is how coarse the ends of what is restored are: records that end at about the same time share a lease.
	leaseStep = time.Hour
	// identityRoom is more than a host or a client can have enrolled since the backup. Certificates of that time go on to count, and
	// the next that is made is of a later generation than all of them.
	identityRoom = 1000
)

// Item is a record as it is in a backup.
type Item struct {
	// Key is the record's place, without what all records have in common.
	Key   string `json:"key"`
	Value []byte `json:"value"`
	// Left is how long the record was to be kept from then on. 0 is for good.
	Left time.Duration `json:"left,omitempty"`
}

// Backup calls each with everything that is worth keeping, as it was at one moment, and returns the revision of that moment. Who is connected is
// not worth keeping, and join tokens are not either: one that is used after the backup would be good again.
func (s *Store) Backup(ctx context.Context, each func(Item) error) (int64, error) {
	left := map[int64]time.Duration{}
	from, end, revision := root, clientv3.GetPrefixRangeEnd(root), int64(0)
	for {
		response, err := s.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(revision))
		if err != nil {
			return 0, fmt.Errorf("read the records: %w", translate(err))
		}
		if revision == 0 {
			revision = response.Header.Revision
		}
		for _, kv := range response.Kvs {
			if err := s.backupOne(ctx, kv, left, each); err != nil {
				return 0, err
			}
		}
		if !response.More {
			return revision, nil
		}
		from = string(response.Kvs[len(response.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) backupOne(ctx context.Context, kv *mvccpb.KeyValue, left map[int64]time.Duration, each func(Item) error) error {
	key := string(kv.Key)
	if strings.HasPrefix(key, presence) || strings.HasPrefix(key, joinTokens) || key == history {
		return nil
	}
	item := Item{Key: strings.TrimPrefix(key, root), Value: kv.Value}
	if kv.Lease != 0 {
		if _, known := left[kv.Lease]; !known {
			lease, err := s.client.TimeToLive(ctx, clientv3.LeaseID(kv.Lease))
			if err != nil {
				return fmt.Errorf("read how long %s is kept: %w", key, err)
			}
			left[kv.Lease] = time.Duration(lease.TTL) * time.Second
		}
		if item.Left = left[kv.Lease]; item.Left <= 0 {
			return nil // it has ended meanwhile
		}
	}
	return each(item)
}

// Empty tells whether there is no record at all.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	response, err := s.client.Get(ctx, root, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return false, fmt.Errorf("look for records: %w", err)
	}
	return response.Count == 0, nil
}

// Restoration takes the items of a backup into an empty store: Put each, then End. What it does not finish is to be thrown away.
type Restoration struct {
	store   *Store
	leases  map[time.Duration]clientv3.LeaseID
	pending transaction
	// Pairs is how many pairs have been restored.
	Pairs int
}

// Restore begins a restoration.
func (s *Store) Restore() *Restoration {
	r := &Restoration{store: s, leases: map[time.Duration]clientv3.LeaseID{}}
	r.pending.put(history, uuid.NewString())
	return r
}

// History names the present life of the records: revisions of an earlier one say nothing about it. Empty until the first restore.
func (s *Store) History(ctx context.Context) (string, error) {
	response, err := s.client.Get(ctx, history)
	if err != nil {
		return "", fmt.Errorf("read which life of the records this is: %w", err)
	}
	if len(response.Kvs) == 0 {
		return "", nil
	}
	return string(response.Kvs[0].Value), nil
}

// Put takes an item. Pairs are marked: what their hosts hold counts before the record does. An item of a newer control plane is *VersionError.
func (r *Restoration) Put(ctx context.Context, item Item) error {
	kv := &mvccpb.KeyValue{Key: []byte(root + item.Key), Value: item.Value}
	value, err := r.restored(kv)
	if err != nil {
		return err
	}
	var options []clientv3.OpOption
	if item.Left > 0 {
		lease, err := r.lease(ctx, item.Left)
		if err != nil {
			return err
		}
		options = append(options, clientv3.WithLease(lease))
	}
	r.pending.put(string(kv.Key), value, options...)
	if len(r.pending.effects) < writesPerTransaction {
		return nil
	}
	return r.End(ctx)
}

// End stores what is left.
func (r *Restoration) End(ctx context.Context) error {
	if len(r.pending.effects) == 0 {
		return nil
	}
	if _, err := r.store.client.Txn(ctx).Then(r.pending.effects...).Commit(); err != nil {
		return fmt.Errorf("store restored records: %w", err)
	}
	r.pending = transaction{}
	return nil
}

func (r *Restoration) restored(kv *mvccpb.KeyValue) (string, error) {
	switch key := string(kv.Key); {
	case strings.HasPrefix(key, pairs):
		r.Pairs++
		return markRestored(kv)
	case strings.HasPrefix(key, identities):
		read, err := decode[Identity](kv)
		if err != nil {
			return "", err
		}
		read.Generation += identityRoom
		return encode(read)
	case strings.HasPrefix(key, servers), strings.HasPrefix(key, pairOperations):
		return string(kv.Value), nil // they have no envelope
	default:
		_, err := decode[json.RawMessage](kv)
		return string(kv.Value), err
	}
}

func markRestored(kv *mvccpb.KeyValue) (string, error) {
	record, err := decode[drpair.Record](kv)
	if err != nil {
		return "", err
	}
	record.Pair.Restored = true
	return encode(record)
}

func (r *Restoration) lease(ctx context.Context, left time.Duration) (clientv3.LeaseID, error) {
	left = left.Truncate(leaseStep) + leaseStep
	if lease, made := r.leases[left]; made {
		return lease, nil
	}
	lease, err := r.store.lease(ctx, left)
	if err == nil {
		r.leases[left] = lease
	}
	return lease, err
}

// MarkRestored is for records that were restored by other means, such as a snapshot of etcd: it marks every pair as Put does, makes join tokens
// count no more, and returns how many pairs there are. No control plane may run meanwhile.
func (s *Store) MarkRestored(ctx context.Context) (int, error) {
	_, kvs, err := s.pages(ctx, 0)
	if err != nil {
		return 0, err
	}
	for _, kv := range kvs {
		value, err := markRestored(kv)
		if err != nil {
			return 0, err
		}
		var t transaction
		t.unchanged(string(kv.Key), kv.ModRevision)
		t.put(string(kv.Key), value)
		if _, done, err := s.attempt(ctx, &t, string(kv.Key)); err != nil || !done {
			return 0, fmt.Errorf("mark %s as restored: %w", kv.Key, orConflict(err))
		}
	}
	if _, err := s.client.Txn(ctx).Then(clientv3.OpDelete(joinTokens, clientv3.WithPrefix()), clientv3.OpPut(history, uuid.NewString())).Commit(); err != nil {
		return 0, fmt.Errorf("end the join tokens: %w", err)
	}
	return len(kvs), s.raiseIdentities(ctx)
}

// raiseIdentities does for identities what Put does.
func (s *Store) raiseIdentities(ctx context.Context) error {
	response, err := s.client.Get(ctx, identities, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list identities: %w", err)
	}
	for _, kv := range response.Kvs {
		subject := strings.TrimPrefix(string(kv.Key), identities)
		if _, err := s.changeIdentity(ctx, subject, func(i *Identity) { i.Generation += identityRoom }); err != nil {
			return err
		}
	}
	return nil
}

func orConflict(err error) error {
	if err == nil {
		return ErrConflict
	}
	return err
}
