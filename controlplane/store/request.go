package store

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// requestMemory is how long a request id is remembered.
const requestMemory = 24 * time.Hour

// RequestKey names one request of one caller. The zero value, or one without an ID, means that the request is not to
// be remembered.
type RequestKey struct {
	// Method is the full name of the RPC, Caller who called it. The same ID of another method or caller is another
	// request.
	Method, Caller string
	// ID is the caller's request id.
	ID string
	// Fingerprint is a hash of the request without its id. The same ID with another one is refused.
	Fingerprint [32]byte
}

func (k RequestKey) set() bool { return k.ID != "" }

// key encodes what callers chose freely, so that it cannot reach into another key.
func (k RequestKey) key() string {
	safe := base64.RawURLEncoding.EncodeToString
	return requests + safe([]byte(k.Method)) + "/" + safe([]byte(k.Caller)) + "/" + safe([]byte(k.ID))
}

// RequestRecord is what a request led to.
type RequestRecord struct {
	Pair string
	// Operation is the pair's newest operation after the request, which for a request that makes one is that one.
	// It may be empty.
	Operation string
}

type storedRequest struct {
	RequestRecord
	Fingerprint [32]byte
}

// Request looks up what a request with this key led to. found is false when there was none, or when the key has no
// ID. The same id with another fingerprint is *RequestReusedError.
func (s *Store) Request(ctx context.Context, key RequestKey) (record RequestRecord, found bool, err error) {
	if !key.set() {
		return RequestRecord{}, false, nil
	}
	response, err := s.client.Get(ctx, key.key())
	if err != nil {
		return RequestRecord{}, false, fmt.Errorf("look up request %q: %w", key.ID, err)
	}
	if len(response.Kvs) == 0 {
		return RequestRecord{}, false, nil
	}
	stored, err := decode[storedRequest](response.Kvs[0])
	if err != nil {
		return RequestRecord{}, false, err
	}
	if stored.Fingerprint != key.Fingerprint {
		return RequestRecord{}, false, &RequestReusedError{ID: key.ID}
	}
	return stored.RequestRecord, true, nil
}

// remember adds the request to a transaction: it must not be there, and is put.
func (s *Store) remember(ctx context.Context, t *transaction, key RequestKey, record RequestRecord) error {
	if !key.set() {
		return nil
	}
	lease, err := s.lease(ctx, requestMemory)
	if err != nil {
		return err
	}
	value, err := encode(storedRequest{RequestRecord: record, Fingerprint: key.Fingerprint})
	if err != nil {
		return err
	}
	t.absent(key.key())
	t.put(key.key(), value, clientv3.WithLease(lease))
	return nil
}

// lease makes a lease for records that are forgotten after ttl. Should the transaction not come about, the lease
// ends by itself and has deleted nothing.
func (s *Store) lease(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	lease, err := s.client.Grant(ctx, int64(ttl/time.Second))
	if err != nil {
		return 0, fmt.Errorf("make a lease of %v: %w", ttl, err)
	}
	return lease.ID, nil
}
