package store

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// JoinToken is what is kept of a join token: enough to know it again, and not enough to use it.
type JoinToken struct {
	ID         string
	SecretHash [32]byte
	// Host is the id of the host that may enrol with it.
	Host       string
	ExpireTime time.Time
	// Used tells that a host has enrolled with it, whose key had that hash, and got that generation.
	Used       bool
	KeyHash    [32]byte
	Generation uint64
}

// ErrBadJoinToken says that a join token does not exist, has ended, is used, or is for another host. Which of them the
// text says, for the log; a caller that has shown no valid token is not to be told.
var ErrBadJoinToken = errors.New("the join token is not valid")

// tokenMemory is how long a token is kept after its end, so that the log can tell one that has ended from one that
// never was.
const tokenMemory = 24 * time.Hour

// PutJoinToken stores a new token.
func (s *Store) PutJoinToken(ctx context.Context, token JoinToken, now time.Time) error {
	lease, err := s.lease(ctx, token.ExpireTime.Sub(now)+tokenMemory)
	if err != nil {
		return err
	}
	value, err := encode(token)
	if err != nil {
		return err
	}
	var t transaction
	t.absent(joinTokenKey(token.ID))
	t.put(joinTokenKey(token.ID), value, clientv3.WithLease(lease))
	if _, done, err := s.attempt(ctx, &t, joinTokenKey(token.ID)); err != nil || done {
		return err
	}
	return fmt.Errorf("store join token %s: %w", token.ID, ErrConflict)
}

// heldToken is a join token as it is stored, with what it depends on.
type heldToken struct {
	JoinToken
	revision int64
	lease    clientv3.LeaseID

	host         Identity
	hostRevision int64
}

// JudgeJoinToken tells what the token that is shown by its ID, SecretHash and KeyHash is good for, and leaves it as it is.
// One that Enroll would refuse now is ErrBadJoinToken.
func (s *Store) JudgeJoinToken(ctx context.Context, shown JoinToken, subject func(host string) string, now time.Time) (JoinToken, error) {
	held, err := s.judgeToken(ctx, shown, subject, now)
	return held.JoinToken, err
}

func (s *Store) judgeToken(ctx context.Context, shown JoinToken, subject func(host string) string, now time.Time) (heldToken, error) {
	response, err := s.client.Get(ctx, joinTokenKey(shown.ID))
	if err != nil {
		return heldToken{}, fmt.Errorf("read join token %s: %w", shown.ID, err)
	}
	if len(response.Kvs) == 0 {
		return heldToken{}, fmt.Errorf("%w: there is none of id %s", ErrBadJoinToken, shown.ID)
	}
	kv := response.Kvs[0]
	held := heldToken{revision: kv.ModRevision, lease: clientv3.LeaseID(kv.Lease)}
	if held.JoinToken, err = decode[JoinToken](kv); err != nil {
		return heldToken{}, err
	}
	if held.host, held.hostRevision, err = s.identity(ctx, subject(held.Host)); err != nil {
		return heldToken{}, err
	}
	return held, held.judge(shown, held.host, now)
}

// Enroll uses up the token that is shown by its ID, SecretHash and KeyHash, and makes a generation of the token's host, which
// takes the place of every earlier one, in one transaction. A host that has not got the answer may ask again: the same
// token with the same key gets the same generation until the token ends. Anything else is ErrBadJoinToken.
func (s *Store) Enroll(ctx context.Context, shown JoinToken, subject func(host string) string, now time.Time) (JoinToken, error) {
	for range identityAttempts {
		held, err := s.judgeToken(ctx, shown, subject, now)
		if err != nil || held.Used {
			return held.JoinToken, err
		}
		enrolled, done, err := s.useToken(ctx, held, shown.KeyHash)
		if err != nil || done {
			return enrolled, err
		}
	}
	return JoinToken{}, fmt.Errorf("enrol with join token %s: %w", shown.ID, ErrConflict)
}

// useToken is one attempt; done is false when somebody else changed what it relied on.
func (s *Store) useToken(ctx context.Context, held heldToken, key [32]byte) (enrolled JoinToken, done bool, err error) {
	host := held.host
	host.Generation = max(host.Generation+1, host.Least)
	host.Least = host.Generation
	enrolled = held.JoinToken
	enrolled.Used, enrolled.KeyHash, enrolled.Generation = true, key, host.Generation
	value, err := encode(enrolled)
	if err != nil {
		return JoinToken{}, false, err
	}
	var t transaction
	t.unchanged(joinTokenKey(enrolled.ID), held.revision)
	t.put(joinTokenKey(enrolled.ID), value, clientv3.WithLease(held.lease))
	if err := t.putIdentity(host, held.hostRevision); err != nil {
		return JoinToken{}, false, err
	}
	_, done, err = s.attempt(ctx, &t, joinTokenKey(enrolled.ID))
	return enrolled, done, err
}

// judge says why what was shown does not let its holder enrol, as far as the host's identity and the time are these.
func (t JoinToken) judge(shown JoinToken, host Identity, now time.Time) error {
	switch {
	case subtle.ConstantTimeCompare(t.SecretHash[:], shown.SecretHash[:]) != 1:
		return fmt.Errorf("%w: the secret of %s is another one", ErrBadJoinToken, t.ID)
	case !now.Before(t.ExpireTime):
		return fmt.Errorf("%w: %s ended at %v", ErrBadJoinToken, t.ID, t.ExpireTime)
	case t.Used && t.KeyHash != shown.KeyHash:
		return fmt.Errorf("%w: %s has been used", ErrBadJoinToken, t.ID)
	case t.Used && t.Generation < host.Least:
		return fmt.Errorf("%w: what %s gave has been revoked", ErrBadJoinToken, t.ID)
	default:
		return nil
	}
}
