package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// identityAttempts bounds how often a change of an identity is tried when others change it at the same moment.
const identityAttempts = 10

// Identity says which certificates of a subject count.
type Identity struct {
	// Subject is "host/{id}" or "client/{name}".
	Subject string
	// Generation is that of the newest certificates.
	Generation uint64
	// Least is the least generation that counts. More than Generation when all are revoked.
	Least uint64
	// RevokeTime is when it was last revoked by somebody; zero for never.
	RevokeTime time.Time
}

// Identity reads the identity of a subject. One that has none is ErrNotFound.
func (s *Store) Identity(ctx context.Context, subject string) (Identity, error) {
	read, revision, err := s.identity(ctx, subject)
	if err == nil && revision == 0 {
		return Identity{}, fmt.Errorf("identity %s: %w", subject, ErrNotFound)
	}
	return read, err
}

// identity reads an identity and its revision, 0 for one that is not there.
func (s *Store) identity(ctx context.Context, subject string) (Identity, int64, error) {
	response, err := s.client.Get(ctx, identityKey(subject))
	if err != nil {
		return Identity{}, 0, fmt.Errorf("read identity %s: %w", subject, err)
	}
	if len(response.Kvs) == 0 {
		return Identity{Subject: subject}, 0, nil
	}
	read, err := decode[Identity](response.Kvs[0])
	return read, response.Kvs[0].ModRevision, err
}

// Revoke makes every certificate that the subject has count no more. One that has none by now can get none of an
// earlier generation either.
func (s *Store) Revoke(ctx context.Context, subject string, now time.Time) (Identity, error) {
	return s.changeIdentity(ctx, subject, func(i *Identity) {
		i.Least, i.RevokeTime = max(i.Least, i.Generation+1), now
	})
}

// Admit makes sure that the subject has a generation that counts, for a further certificate beside those it has.
func (s *Store) Admit(ctx context.Context, subject string) (Identity, error) {
	return s.changeIdentity(ctx, subject, func(i *Identity) { i.Generation = max(i.Generation, i.Least, 1) })
}

func (s *Store) changeIdentity(ctx context.Context, subject string, change func(*Identity)) (Identity, error) {
	for range identityAttempts {
		read, revision, err := s.identity(ctx, subject)
		if err != nil {
			return Identity{}, err
		}
		change(&read)
		var t transaction
		if err := t.putIdentity(read, revision); err != nil {
			return Identity{}, err
		}
		if _, done, err := s.attempt(ctx, &t, identityKey(subject)); err != nil || done {
			return read, err
		}
	}
	return Identity{}, fmt.Errorf("change identity %s: %w", subject, ErrConflict)
}

// putIdentity adds an identity to a transaction, in place of the one of that revision.
func (t *transaction) putIdentity(changed Identity, revision int64) error {
	value, err := encode(changed)
	if err != nil {
		return err
	}
	t.unchanged(identityKey(changed.Subject), revision)
	t.put(identityKey(changed.Subject), value)
	return nil
}

// FollowIdentities calls each with every identity there is, then with those that change, until the context ends. It
// calls complete once it has told all there were at the beginning. The caller begins again when it fails.
func (s *Store) FollowIdentities(ctx context.Context, each func(Identity), complete func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	response, err := s.client.Get(ctx, identities, clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("list identities: %w", err)
	}
	for _, kv := range response.Kvs {
		read, err := decode[Identity](kv)
		if err != nil {
			return err
		}
		each(read)
	}
	complete()
	watch := s.client.Watch(clientv3.WithRequireLeader(ctx), identities, clientv3.WithPrefix(), clientv3.WithRev(response.Header.Revision+1))
	for changes := range watch {
		if err := changes.Err(); err != nil {
			return fmt.Errorf("watch identities: %w", translate(err))
		}
		for _, event := range changes.Events {
			if event.Type != clientv3.EventTypePut {
				continue // identities are never deleted
			}
			read, err := decode[Identity](event.Kv)
			if err != nil {
				return err
			}
			each(read)
		}
	}
	return errors.New("watch identities: the watch has ended")
}
