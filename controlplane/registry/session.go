package registry

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/umbra-dr/umbra/controlplane/store"
)

// Enter makes a session the host's only one, and returns its number. end is called when it is not that any more: with
// ErrReplaced when a newer one has begun, here or elsewhere, with ErrLost when this control plane has lost its lease. The
// caller owes a Leave, unless there is an error.
func (r *Registry) Enter(ctx context.Context, host string, end context.CancelCauseFunc) (uint64, error) {
	r.mu.Lock()
	lease := r.lease
	r.mu.Unlock()
	if lease == nil {
		return 0, ErrLost
	}
	ctx, cancel := context.WithTimeout(ctx, enterTimeout)
	defer cancel()
	now := r.Clock.Now()
	number, err := lease.BeginSession(ctx, host, r.self.ID, now)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.lease != lease:
		return 0, ErrLost
	case r.sessions[host].Number > number:
		return 0, ErrReplaced
	}
	r.begun(store.HeldSession{Session: store.Session{Host: host, Number: number}, Holder: r.self.ID, Time: now})
	r.mine[host] = mine{number: number, end: end}
	return number, nil
}

// Leave says that the session has ended by itself: the host has gone, or is silent. It does not wait for etcd.
func (r *Registry) Leave(host string, number uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mine[host].number != number {
		return
	}
	delete(r.mine, host)
	r.leaving[store.Session{Host: host, Number: number}] = struct{}{}
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// remove removes sessions that have ended from etcd. What fails stays to be removed.
func (r *Registry) remove(ctx context.Context) error {
	for {
		r.mu.Lock()
		ended := make([]store.Session, 0, len(r.leaving))
		for session := range r.leaving {
			ended = append(ended, session)
		}
		r.mu.Unlock()
		var group errgroup.Group
		group.SetLimit(leavesMax)
		for _, session := range ended {
			group.Go(func() error {
				if err := r.Store.EndSession(ctx, session); err != nil {
					return err
				}
				r.mu.Lock()
				defer r.mu.Unlock()
				delete(r.leaving, session)
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.news:
		}
	}
}

// follow reads everything and then follows the changes until that fails.
func (r *Registry) follow(ctx context.Context) error {
	all, revision, err := r.Store.Present(ctx)
	if err != nil {
		return err
	}
	r.replace(all, revision)
	for changes, err := range r.Store.FollowPresence(ctx, revision) {
		if err != nil {
			return err
		}
		r.apply(changes)
	}
	return errors.New("the watch has ended")
}

// replace takes over what etcd held at a revision. How what is missing came to its end is not known.
func (r *Registry) replace(all []store.Presence, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	planes, sessions := map[string]bool{}, map[string]bool{}
	for _, one := range all {
		if one.ControlPlane != nil {
			planes[one.ControlPlane.ID] = true
		} else {
			sessions[one.Session.Host] = true
		}
		r.appear(one)
	}
	for id := range r.planes {
		if !planes[id] {
			r.planeGone(id, revision)
		}
	}
	for host := range r.sessions {
		if !sessions[host] {
			r.sessionGone(host, revision, false)
		}
	}
	r.filled = true
	r.settle()
}

// apply takes over changes, all those of one revision at once: a session that ends in the revision in which its control
// plane does has lost that, and nothing is known of its host.
func (r *Registry) apply(changes []store.Presence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	lost := map[string]int64{}
	for _, one := range changes {
		if one.Gone && one.ControlPlane != nil {
			lost[one.ControlPlane.ID] = one.Revision
		}
	}
	for _, one := range changes {
		switch {
		case !one.Gone:
			r.appear(one)
		case one.ControlPlane != nil:
			r.planeGone(one.ControlPlane.ID, one.Revision)
		default:
			host := one.Session.Host
			r.sessionGone(host, one.Revision, lost[r.sessions[host].Holder] != one.Revision)
		}
	}
}

// appear takes over what is there. r.mu is held.
func (r *Registry) appear(one store.Presence) {
	if plane := one.ControlPlane; plane != nil {
		if r.planes[plane.ID] != *plane {
			r.planes[plane.ID] = *plane
			r.changed.Publish(plane.ID)
		}
		return
	}
	r.begun(*one.Session)
}

// begun notes a session, unless a newer one of the host is known, as it is when it has begun here and the watch has not
// come that far. An older one that is here ends. r.mu is held.
func (r *Registry) begun(session store.HeldSession) {
	if session.Number <= r.sessions[session.Host].Number {
		return
	}
	r.sessions[session.Host] = session
	r.Observed.Connect(session.Host, session.Number, session.Holder, session.Time)
	if older, ok := r.mine[session.Host]; ok {
		older.end(ErrReplaced)
		delete(r.mine, session.Host)
	}
}

// planeGone forgets a control plane that was not there any more at a revision. If it is this one, its lease has ended at
// etcd, and is not waited for here. r.mu is held.
func (r *Registry) planeGone(id string, revision int64) {
	delete(r.planes, id)
	r.changed.Publish(id)
	if id == r.self.ID && r.lease != nil && r.lease.Revision <= revision {
		r.giveUp()
	}
}

// sessionGone forgets a host's session that was not there any more at a revision. r.mu is held.
func (r *Registry) sessionGone(host string, revision int64, left bool) {
	ended := r.sessions[host]
	if ended.Number > uint64(revision) {
		return
	}
	delete(r.sessions, host)
	r.Observed.Disconnect(host, ended.Number, left, r.Clock.Now())
	if held, ok := r.mine[host]; ok && held.number == ended.Number {
		held.end(ErrLost)
		delete(r.mine, host)
	}
}
