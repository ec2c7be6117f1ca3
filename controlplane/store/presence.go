package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ControlPlane is a process that works on these records.
type ControlPlane struct {
	// ID is another one in each life of the process.
	ID string
	// Address is where the others reach it, "address:port"; empty if they cannot.
	Address string
}

// Session names a host's session. The Number is the revision at which it was stored, so a later session of the host has a
// higher one, whichever control plane it is with. Number 0 says that the host has none.
type Session struct {
	Host   string
	Number uint64
}

// HeldSession is the session of a host that is connected.
type HeldSession struct {
	Session
	// Holder is the id of the control plane that has it.
	Holder string
	// Time is when it began, by that one's clock.
	Time time.Time
}

type storedSession struct {
	Holder string
	Time   time.Time
}

// Presence is a control plane or a host's session that is there, or is not there any more.
type Presence struct {
	// One of them is set. Of one that is gone only the id, or the host, is known.
	ControlPlane *ControlPlane
	Session      *HeldSession
	Gone         bool
	// Revision is when that changed. What ends with the lease of one control plane ends in one revision.
	Revision int64
}

// Life is the lease of a control plane: what it has put under it is gone when the control plane is.
type Life struct {
	// Revision is when the control plane was put under it.
	Revision int64

	store *Store
	lease clientv3.LeaseID
	alive <-chan *clientv3.LeaseKeepAliveResponse
}

// Begin makes a lease, puts the control plane under it, and keeps it alive until the context ends. A lease that is not
// kept alive any more ends by itself after ttl, or the least time that etcd grants.
func (s *Store) Begin(ctx context.Context, self ControlPlane, ttl time.Duration) (*Life, error) {
	value, err := encode(self)
	if err != nil {
		return nil, err
	}
	lease, err := s.lease(ctx, ttl)
	if err != nil {
		return nil, err
	}
	alive, err := s.client.KeepAlive(ctx, lease)
	if err != nil {
		return nil, fmt.Errorf("keep the lease of control plane %s: %w", self.ID, err)
	}
	response, err := s.client.Put(ctx, controlPlaneKey(self.ID), value, clientv3.WithLease(lease))
	if err != nil {
		return nil, fmt.Errorf("store control plane %s: %w", self.ID, err)
	}
	return &Life{Revision: response.Header.Revision, store: s, lease: lease, alive: alive}, nil
}

// Wait returns when the lease is lost or the context that it began with has ended.
func (l *Life) Wait() {
	for range l.alive { // each value is one renewal
	}
}

// BeginSession stores that the control plane has the host's session, in place of an earlier one, and returns its number.
func (l *Life) BeginSession(ctx context.Context, host, holder string, now time.Time) (uint64, error) {
	value, err := encode(storedSession{Holder: holder, Time: now})
	if err != nil {
		return 0, err
	}
	response, err := l.store.client.Put(ctx, sessionKey(host), value, clientv3.WithLease(l.lease))
	if err != nil {
		return 0, fmt.Errorf("store the session of host %s: %w", host, err)
	}
	return uint64(response.Header.Revision), nil
}

// EndSession removes the session. If the host has a newer one, that one stays.
func (s *Store) EndSession(ctx context.Context, session Session) error {
	var t transaction
	t.unchanged(sessionKey(session.Host), int64(session.Number))
	t.delete(sessionKey(session.Host))
	if _, err := s.client.Txn(ctx).If(t.conditions...).Then(t.effects...).Commit(); err != nil {
		return fmt.Errorf("remove the session of host %s: %w", session.Host, err)
	}
	return nil
}

// Present reads which control planes and sessions there are, and the revision at which that was so.
func (s *Store) Present(ctx context.Context) ([]Presence, int64, error) {
	response, err := s.client.Get(ctx, presence, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("list control planes and sessions: %w", err)
	}
	all := make([]Presence, 0, len(response.Kvs))
	for _, kv := range response.Kvs {
		one, err := presenceOf(kv, false)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, one)
	}
	return all, response.Header.Revision, nil
}

// FollowPresence yields the changes after a revision, those of one revision together, until the watch is lost or the
// context ends. The last thing it yields is why.
func (s *Store) FollowPresence(ctx context.Context, after int64) iter.Seq2[[]Presence, error] {
	return func(yield func([]Presence, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		watch := s.client.Watch(clientv3.WithRequireLeader(ctx), presence, clientv3.WithPrefix(), clientv3.WithRev(after+1))
		for response := range watch {
			if err := response.Err(); err != nil {
				yield(nil, fmt.Errorf("watch control planes and sessions: %w", translate(err)))
				return
			}
			changes := make([]Presence, 0, len(response.Events))
			for _, event := range response.Events {
				one, err := presenceOf(event.Kv, event.Type == clientv3.EventTypeDelete)
				if err != nil {
					yield(nil, err)
					return
				}
				changes = append(changes, one)
			}
			if len(changes) > 0 && !yield(changes, nil) {
				return
			}
		}
		yield(nil, errors.New("watch control planes and sessions: the watch has ended"))
	}
}

func presenceOf(kv *mvccpb.KeyValue, gone bool) (Presence, error) {
	one := Presence{Gone: gone, Revision: kv.ModRevision}
	if host, is := strings.CutPrefix(string(kv.Key), sessions); is {
		one.Session = &HeldSession{Session: Session{Host: host, Number: uint64(kv.ModRevision)}}
		if gone {
			return one, nil
		}
		stored, err := decode[storedSession](kv)
		one.Session.Holder, one.Session.Time = stored.Holder, stored.Time
		return one, err
	}
	if gone {
		one.ControlPlane = &ControlPlane{ID: strings.TrimPrefix(string(kv.Key), controlPlanes)}
		return one, nil
	}
	stored, err := decode[ControlPlane](kv)
	one.ControlPlane = &stored
	return one, err
}
