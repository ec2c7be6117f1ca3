package replica

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
)

// Run looks after the points until ctx ends: retention after each point and at a beat, scrub at a slow beat. Then it ends all
// streams and closes all stores. It returns what went wrong in closing. Call it once.
func (r *Replica) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { r.pruneLoop(ctx) })
	wg.Go(func() { r.scrubLoop(ctx) })
	wg.Wait()
	return r.close()
}

func (r *Replica) pruneLoop(ctx context.Context) {
	beat := r.cfg.Clock.NewTicker(r.cfg.PruneEvery)
	defer beat.Stop()
	for {
		var pairs []*pair
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			pairs = r.all()
		case <-r.due.news:
			pairs = r.due.take()
		}
		for _, p := range pairs {
			if err := p.prune(ctx); err != nil && ctx.Err() == nil {
				p.log.Warn("retention failed, and is tried again", "error", err)
			}
		}
	}
}

func (r *Replica) scrubLoop(ctx context.Context) {
	beat := r.cfg.Clock.NewTicker(r.cfg.ScrubEvery)
	defer beat.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		}
		p := r.after(last)
		if p == nil {
			continue
		}
		last = p.name
		if err := p.scrub(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("scrub failed, and is tried again", "error", err)
		}
	}
}

// after returns the pair with an open store that comes next in the order of names, the first one after the last.
func (r *Replica) after(name string) *pair {
	pairs := slices.DeleteFunc(r.all(), func(p *pair) bool { return p.opened() == nil })
	slices.SortFunc(pairs, func(a, b *pair) int { return cmp.Compare(a.name, b.name) })
	for _, p := range pairs {
		if p.name > name {
			return p
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	return pairs[0]
}

// scrub reads a part of the store. Damage to the latest state ends a stream that began before it was known, because the next
// one repairs it. A stream that began after it was known is that next one.
func (p *pair) scrub(ctx context.Context) error {
	store := p.opened()
	if store == nil {
		return nil
	}
	_, err := store.Scrub(ctx, p.r.cfg.ScrubBytes)
	damage := store.LatestDamage(damageListMax)
	if gateErr := p.gate.lock(ctx); gateErr != nil {
		return gateErr
	}
	if p.current != nil && !p.current.repairs(damage) {
		p.cut(errDamage)
	}
	p.gate.unlock()
	p.refresh()
	return err
}

func (r *Replica) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *Replica) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	var err error
	for _, p := range r.all() {
		p.gate.await()
		p.cut(ErrClosed)
		p.gate.unlock()
		err = errors.Join(err, p.closeStore())
	}
	return err
}
