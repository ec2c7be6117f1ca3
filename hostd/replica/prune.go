package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/retention"
)

// lockTending gets the right to decide what happens to points. stop ends a pruning that runs, instead of waiting until it is done;
// the store goes on with it later.
func (p *pair) lockTending(ctx context.Context, stop bool) error {
	if !stop {
		return p.tending.lock(ctx)
	}
	p.mu.Lock()
	p.stopping++
	if p.stopTend != nil {
		p.stopTend()
	}
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.stopping--
		p.mu.Unlock()
	}()
	return p.tending.lock(ctx)
}

// mayTend begins a pruning that lockTending can stop. It needs tending. done must be called if it returns true.
func (p *pair) mayTend(ctx context.Context) (tend context.Context, done func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// While the pair is stopped, the points are what an operator chooses from: none may vanish.
	if p.stopping > 0 || !p.applied || !p.rec.Accept || p.store == nil {
		return nil, nil, false
	}
	tend, cancel := context.WithCancel(ctx)
	p.stopTend = cancel
	return tend, func() {
		p.mu.Lock()
		p.stopTend = nil
		p.mu.Unlock()
		cancel()
	}, true
}

// prune deletes the points that the schedule no longer wants.
func (p *pair) prune(ctx context.Context) error {
	if err := p.tending.lock(ctx); err != nil {
		return err
	}
	defer p.tending.unlock()
	tend, done, ok := p.mayTend(ctx)
	if !ok {
		return nil
	}
	defer done()
	store, err := p.openStore(ctx)
	if err != nil {
		return err
	}
	ids := unwanted(store.Points(), scheduleOf(p.retention()), p.r.cfg.Clock.Now())
	if len(ids) == 0 && !p.unfinished {
		return nil
	}
	err = deletePoints(tend, store, ids)
	p.unfinished = err != nil
	p.refresh()
	if err != nil && tend.Err() == nil {
		return fmt.Errorf("deleting points of pair %s that retention does not want: %w", p.name, err)
	}
	return nil
}

// deletePoints leaves those alone that turn out to be in use: the next beat tries again. Without ids it goes on with what was
// stopped before.
func deletePoints(ctx context.Context, store *recoverystore.Store, ids []recoverystore.PointID) error {
	for {
		err := store.Delete(ctx, ids...)
		var refused *recoverystore.PointError
		if err == nil || !errors.As(err, &refused) {
			return err
		}
		rest := slices.DeleteFunc(ids, func(id recoverystore.PointID) bool { return id == refused.ID })
		if len(rest) == len(ids) {
			return err
		}
		ids = rest
	}
}

// unwanted returns the points that the schedule lets go of and nobody uses.
func unwanted(points []recoverystore.Point, schedule retention.Schedule, now time.Time) []recoverystore.PointID {
	list := make([]retention.Point, len(points))
	pinned := map[string]bool{}
	for i, p := range points {
		list[i] = retention.Point{ID: string(p.ID), Time: p.CreateTime}
		pinned[string(p.ID)] = p.Pinned
	}
	var ids []recoverystore.PointID
	for _, id := range retention.Select(list, schedule, now) {
		if !pinned[id] {
			ids = append(ids, recoverystore.PointID(id))
		}
	}
	return ids
}

// scheduleOf is the policy's schedule, or the default.
func scheduleOf(policy *umbrav1.RetentionPolicy) retention.Schedule {
	if len(policy.GetRules()) == 0 {
		return retention.Default()
	}
	var s retention.Schedule
	for _, r := range policy.GetRules() {
		s.Rules = append(s.Rules, retention.Rule{MaxAge: r.GetMaxAge().AsDuration(), Spacing: r.GetSpacing().AsDuration()})
	}
	return s
}
