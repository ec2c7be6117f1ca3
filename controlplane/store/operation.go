package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

const (
	// operationHistory is how long an operation is kept after a newer one took its place, or its pair was removed.
	operationHistory = 30 * 24 * time.Hour
	// readsPerTransaction is below etcd's default limit of 128 operations in a transaction.
	readsPerTransaction = 100
)

// NewOperationID makes an id. Ids of later milliseconds sort after those of earlier ones.
func NewOperationID(now time.Time) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, by its documentation
	return fmt.Sprintf("op-%012x-%s", now.UnixMilli(), hex.EncodeToString(random[:]))
}

// Operation reads an operation, also one of a pair that is gone. An unknown or forgotten id is ErrNotFound.
func (s *Store) Operation(ctx context.Context, id string) (drpair.Operation, error) {
	response, err := s.client.Get(ctx, operationKey(id))
	if err != nil {
		return drpair.Operation{}, fmt.Errorf("read operation %s: %w", id, err)
	}
	if len(response.Kvs) == 0 {
		return drpair.Operation{}, fmt.Errorf("operation %s: %w", id, ErrNotFound)
	}
	return decode[drpair.Operation](response.Kvs[0])
}

// Operations reads a page of operations, newest first, of one pair or of all if pair is empty. next is the token of
// the page after it, empty on the last. A token that is not one is ErrBadToken.
func (s *Store) Operations(ctx context.Context, pair string, pageSize int, token string) (page []drpair.Operation, next string, err error) {
	prefix := operations
	options := []clientv3.OpOption{clientv3.WithLimit(int64(pageSize) + 1)}
	if pair != "" {
		prefix = pairOperationsPrefix(pair)
		options = append(options, clientv3.WithKeysOnly())
	}
	from := prefix
	if token != "" {
		if strings.ContainsFunc(token, func(r rune) bool { return !strings.ContainsRune(idCharacters, r) }) {
			return nil, "", ErrBadToken
		}
		from = prefix + reverse(token) + "\x00"
	}
	response, err := s.client.Get(ctx, from, append(options, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)))...)
	if err != nil {
		return nil, "", fmt.Errorf("list operations: %w", err)
	}
	kvs := response.Kvs
	if len(kvs) > pageSize {
		kvs = kvs[:pageSize]
		next = reverse(strings.TrimPrefix(string(kvs[pageSize-1].Key), prefix))
	}
	if pair == "" {
		for _, kv := range kvs {
			operation, err := decode[drpair.Operation](kv)
			if err != nil {
				return nil, "", err
			}
			page = append(page, operation)
		}
		return page, next, nil
	}
	keys := make([]string, len(kvs))
	for i, kv := range kvs {
		keys[i] = operations + strings.TrimPrefix(string(kv.Key), prefix)
	}
	page, err = s.operationsAt(ctx, keys)
	return page, next, err
}

// operationsAt reads operations by their keys. One that has been forgotten meanwhile is left out.
func (s *Store) operationsAt(ctx context.Context, keys []string) ([]drpair.Operation, error) {
	var found []drpair.Operation
	for len(keys) > 0 {
		n := min(len(keys), readsPerTransaction)
		reads := make([]clientv3.Op, n)
		for i, key := range keys[:n] {
			reads[i] = clientv3.OpGet(key)
		}
		keys = keys[n:]
		response, err := s.client.Txn(ctx).Then(reads...).Commit()
		if err != nil {
			return nil, fmt.Errorf("list operations: %w", err)
		}
		for i := range reads {
			kv := first(response, i)
			if kv == nil {
				continue
			}
			operation, err := decode[drpair.Operation](kv)
			if err != nil {
				return nil, err
			}
			found = append(found, operation)
		}
	}
	return found, nil
}

// putOperation adds the operation to a transaction. As history it is forgotten after operationHistory.
func (s *Store) putOperation(ctx context.Context, t *transaction, operation drpair.Operation, history bool) error {
	value, err := encode(operation)
	if err != nil {
		return err
	}
	var options []clientv3.OpOption
	if history {
		lease, err := s.lease(ctx, operationHistory)
		if err != nil {
			return err
		}
		options = append(options, clientv3.WithLease(lease))
	}
	t.put(operationKey(operation.ID), value, options...)
	t.put(pairOperationKey(operation.Pair, operation.ID), "", options...)
	return nil
}
