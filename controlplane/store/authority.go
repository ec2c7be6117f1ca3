package store

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// AuthorityRecord is the authority that the control planes on this etcd have made for themselves, PEM.
type AuthorityRecord struct {
	Certs []byte
	// Key is a secret. Whoever can read it can already write to etcd, and so command every host.
	Key []byte
}

// Authority reads the authority. When there is none it stores what propose returns; of control planes that do so at the
// same moment one succeeds, and all get what that one stored.
func (s *Store) Authority(ctx context.Context, propose func() (AuthorityRecord, error)) (AuthorityRecord, error) {
	response, err := s.client.Get(ctx, authority)
	if err != nil {
		return AuthorityRecord{}, fmt.Errorf("read the authority: %w", err)
	}
	if len(response.Kvs) > 0 {
		return decode[AuthorityRecord](response.Kvs[0])
	}
	proposed, err := propose()
	if err != nil {
		return AuthorityRecord{}, err
	}
	value, err := encode(proposed)
	if err != nil {
		return AuthorityRecord{}, err
	}
	var t transaction
	t.absent(authority)
	t.put(authority, value)
	found, done, err := s.attempt(ctx, &t, authority)
	if err != nil || done {
		return proposed, err
	}
	return decode[AuthorityRecord](found)
}

// attempt tries the transaction. When its conditions do not hold it returns what is at the key instead, nil for nothing.
func (s *Store) attempt(ctx context.Context, t *transaction, key string) (found *mvccpb.KeyValue, done bool, err error) {
	response, err := s.client.Txn(ctx).If(t.conditions...).Then(t.effects...).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return nil, false, fmt.Errorf("store %s: %w", key, err)
	}
	if response.Succeeded {
		return nil, true, nil
	}
	return first(response, 0), false, nil
}
