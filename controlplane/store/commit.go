package store

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/umbra-dr/umbra/controlplane/drpair"
)

// Create stores a new pair. It fails with *ExistsError when the id is taken, *AlreadyProtectedError when the server
// is protected by another pair, *RequestReusedError or ErrConflict when the request id has been used: ErrConflict
// means for the same request, which Request finds.
func (s *Store) Create(ctx context.Context, record drpair.Record, request RequestKey) (Entry, error) {
	p := record.Pair
	value, err := encode(record)
	if err != nil {
		return Entry{}, err
	}
	server := serverKey(p.Main.Host, p.Main.UUID)
	var t transaction
	t.absent(pairKey(p.ID))
	t.absent(server)
	t.put(pairKey(p.ID), value)
	t.put(server, p.ID)
	if err := s.remember(ctx, &t, request, requestRecord(record)); err != nil {
		return Entry{}, fmt.Errorf("create pair %s: %w", p.ID, err)
	}
	lookups := []clientv3.Op{clientv3.OpGet(pairKey(p.ID)), clientv3.OpGet(server)}
	if request.set() {
		lookups = append(lookups, clientv3.OpGet(request.key()))
	}
	response, err := s.client.Txn(ctx).If(t.conditions...).Then(t.effects...).Else(lookups...).Commit()
	if err != nil {
		return Entry{}, fmt.Errorf("create pair %s: %w", p.ID, err)
	}
	if response.Succeeded {
		return Entry{Record: record, Revision: response.Header.Revision}, nil
	}
	if request.set() {
		if found := first(response, 2); found != nil {
			return Entry{}, usedRequest(found, request)
		}
	}
	if first(response, 0) != nil {
		return Entry{}, &ExistsError{Pair: p.ID}
	}
	return Entry{}, &AlreadyProtectedError{Pair: string(first(response, 1).Value)}
}

// Commit stores what an event made of old, in one transaction: the pair, its operation, an operation that was
// superseded, and the memory of the request. With change.Remove the pair is deleted and its operations stay. It fails
// with ErrConflict when old is not the stored pair any more or the same request has been carried out, and with
// *RequestReusedError when the request id was used for another request. What a host has told counts only while its
// session stands: with sessions given, it fails with ErrSession when one of them is not the host's session any more. A
// change that changed nothing is not stored, only the request is remembered.
func (s *Store) Commit(ctx context.Context, old Entry, change drpair.Change, request RequestKey, sessions ...Session) (Entry, error) {
	if !change.Changed && !request.set() {
		return old, nil
	}
	id := old.Record.Pair.ID
	var t transaction
	t.unchanged(pairKey(id), old.Revision)
	for _, session := range sessions {
		t.unchanged(sessionKey(session.Host), int64(session.Number))
	}
	if err := s.effects(ctx, &t, old.Record.Operation, change); err != nil {
		return Entry{}, fmt.Errorf("commit pair %s: %w", id, err)
	}
	if err := s.remember(ctx, &t, request, requestRecord(change.Record)); err != nil {
		return Entry{}, fmt.Errorf("commit pair %s: %w", id, err)
	}
	var lookups []clientv3.Op
	for _, session := range sessions {
		lookups = append(lookups, clientv3.OpGet(sessionKey(session.Host)))
	}
	if request.set() {
		lookups = append(lookups, clientv3.OpGet(request.key()))
	}
	response, err := s.client.Txn(ctx).If(t.conditions...).Then(t.effects...).Else(lookups...).Commit()
	switch {
	case err != nil:
		return Entry{}, fmt.Errorf("commit pair %s: %w", id, err)
	case response.Succeeded && !change.Changed:
		return old, nil
	case response.Succeeded:
		return Entry{Record: change.Record, Revision: response.Header.Revision}, nil
	}
	for i, session := range sessions {
		if first(response, i).GetModRevision() != int64(session.Number) {
			return Entry{}, fmt.Errorf("commit pair %s, host %s: %w", id, session.Host, ErrSession)
		}
	}
	if request.set() {
		if found := first(response, len(sessions)); found != nil {
			return Entry{}, usedRequest(found, request)
		}
	}
	return Entry{}, fmt.Errorf("commit pair %s: %w", id, ErrConflict)
}

// effects adds the writes of a change of a pair whose operation was before.
func (s *Store) effects(ctx context.Context, t *transaction, before *drpair.Operation, change drpair.Change) error {
	if !change.Changed {
		return nil
	}
	p := change.Pair
	if change.Remove {
		t.delete(pairKey(p.ID))
		t.delete(serverKey(p.Main.Host, p.Main.UUID))
	} else {
		value, err := encode(change.Record)
		if err != nil {
			return err
		}
		t.put(pairKey(p.ID), value)
	}
	return s.operationEffects(ctx, t, before, change)
}

// operationEffects adds the writes of the pair's operation, and of the one before it if it is another one. As long as
// an operation is the pair's newest it is kept, and after its end not written again.
func (s *Store) operationEffects(ctx context.Context, t *transaction, before *drpair.Operation, change drpair.Change) error {
	newest := change.Operation
	if newest == nil {
		return nil
	}
	another := before == nil || before.ID != newest.ID
	if another || change.Remove || before.State == drpair.OperationRunning {
		if err := s.putOperation(ctx, t, *newest, change.Remove); err != nil {
			return err
		}
	}
	if before == nil || !another {
		return nil
	}
	if change.Superseded != nil {
		before = change.Superseded
	}
	return s.putOperation(ctx, t, *before, true)
}

func requestRecord(record drpair.Record) RequestRecord {
	led := RequestRecord{Pair: record.Pair.ID}
	if record.Operation != nil {
		led.Operation = record.Operation.ID
	}
	return led
}

// usedRequest is why a request key that is there already stops a transaction.
func usedRequest(found *mvccpb.KeyValue, request RequestKey) error {
	stored, err := decode[storedRequest](found)
	switch {
	case err != nil:
		return err
	case stored.Fingerprint != request.Fingerprint:
		return &RequestReusedError{ID: request.ID}
	default:
		return fmt.Errorf("request %q has been carried out: %w", request.ID, ErrConflict)
	}
}

// first is the first key of the response to a transaction's i-th operation, or nil.
func first(response *clientv3.TxnResponse, i int) *mvccpb.KeyValue {
	if kvs := response.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
		return kvs[0]
	}
	return nil
}
