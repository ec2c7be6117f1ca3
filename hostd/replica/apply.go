package replica

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// Apply makes the pair follow the spec. With Accept unset it returns only when the refusal of the epoch is durable and
// nothing of it, or of a lower one, can reach the store any more. With Accept set, that holds for lower epochs. A store that
// cannot be opened is a Failure in Status, and an error only when a resync needs it. Errors: ErrOtherPair, ErrStale,
// ErrRefusedEpoch, ErrClosed, the context's; after others the same spec should be applied again.
func (r *Replica) Apply(ctx context.Context, spec Spec) error {
	if err := spec.check(); err != nil {
		return err
	}
	for {
		p, err := r.ensure(spec.Pair)
		if err != nil {
			return err
		}
		again, err := p.apply(ctx, spec)
		if !again {
			return err
		}
	}
}

// apply asks for another try when the pair was deleted meanwhile.
func (p *pair) apply(ctx context.Context, spec Spec) (again bool, err error) {
	if p.settledOn(spec) {
		return false, nil
	}
	if err := p.lockTending(ctx, !spec.Accept); err != nil {
		return false, err
	}
	defer p.tending.unlock()
	if err := p.gate.lock(ctx); err != nil {
		return false, err
	}
	defer p.gate.unlock()
	if p.gone {
		return true, nil
	}
	if err := p.follow(spec); err != nil {
		return false, err
	}
	err = p.prepare(ctx)
	p.refresh()
	return false, err
}

// follow records the spec, then cuts a stream that it no longer admits. It needs tending and gate.
func (p *pair) follow(spec Spec) error {
	old, _ := p.record()
	next, err := old.follow(spec, !p.isRecorded())
	if err != nil {
		return err
	}
	p.settle(false)
	if err := p.save(next); err != nil {
		return err
	}
	p.about.Store(spec.subject())
	if !old.sameStream(next) {
		p.cut(&refusal{epochOver(p.r.cfg.Clock.Now(), next)})
		p.log.Info("shadow follows a new spec", "accept", next.Accept, "refused_epoch", next.RefusedEpoch, "resync_generation", next.ResyncGeneration)
	}
	p.mu.Lock()
	p.policy, p.applied, p.settled = spec.Policy, true, true
	p.mu.Unlock()
	return nil
}

// prepare opens the store, and does a resync that is pending. It needs tending and gate.
func (p *pair) prepare(ctx context.Context) error {
	store, err := p.openStore(ctx)
	rec, _ := p.record()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		p.setFailure(storeFailure(p.r.cfg.Clock.Now(), err))
		if rec.ResyncPending {
			return err
		}
		return nil
	}
	p.clearFailure(isStoreFailure)
	if !rec.ResyncPending {
		return nil
	}
	if err := p.resync(ctx, store, rec.DeletePoints); err != nil {
		return fmt.Errorf("preparing pair %s for replication from the beginning: %w", p.name, err)
	}
	rec.ResyncPending, rec.DeletePoints = false, false
	if u, err := store.Usage(); err == nil && u.DataBytes == 0 {
		rec.Untrusted = false // there is nothing to distrust
	}
	return p.save(rec)
}

// resync forgets what is covered, and deletes the points if asked. It can be repeated.
func (p *pair) resync(ctx context.Context, store *recoverystore.Store, deletePoints bool) error {
	if err := store.ResetCoverage(ctx); err != nil {
		return err
	}
	if !deletePoints {
		return nil
	}
	return store.DeleteAll(ctx)
}

// Delete ends the pair's streams, removes its store with all points, and then what the journal holds of it. A pair that is
// not there is no error: it may be repeated. Whoever got the store before must have let go of it.
func (r *Replica) Delete(ctx context.Context, name string) error {
	if err := (Spec{Pair: name}).check(); err != nil {
		return err
	}
	p, err := r.ensure(name)
	if err != nil {
		return err
	}
	if err := p.lockTending(ctx, true); err != nil {
		return err
	}
	defer p.tending.unlock()
	if err := p.gate.lock(ctx); err != nil {
		return err
	}
	defer p.gate.unlock()
	if p.gone {
		return nil
	}
	p.cut(&refusal{notHere(r.cfg.Clock.Now(), name)})
	p.mu.Lock()
	p.applied, p.settled, p.rec.Accept = false, false, false
	p.mu.Unlock()
	// Whoever asks for the store meanwhile waits, and finds the pair gone: it would be made anew.
	p.opening.Lock()
	defer p.opening.Unlock()
	if err := p.closeOpened(); err != nil {
		return err
	}
	if _, err := os.Stat(p.dir()); !errors.Is(err, os.ErrNotExist) {
		if err := recoverystore.Remove(p.dir()); err != nil {
			return fmt.Errorf("deleting pair %s: %w", name, err)
		}
	}
	if err := journal.Delete(r.cfg.Journal, journal.Replica, name); err != nil {
		return err
	}
	p.gone = true
	r.forget(p)
	p.log.Info("pair deleted")
	return nil
}
