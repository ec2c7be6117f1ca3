package replica

import (
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// Status is what is known of a pair, from memory.
type Status struct {
	// UID is the pair's, from the last spec.
	UID string
	// Generation and Epoch are those of the last spec.
	Generation, Epoch uint64
	// StoppedEpoch is the highest epoch that is refused for good. It is durable.
	StoppedEpoch uint64
	// ResyncGeneration is that of the last spec.
	ResyncGeneration uint64
	// Accepting says whether streams of Epoch are accepted; Receiving whether there is one.
	Accepting, Receiving bool
	// Newest is the newest complete point; its ID is empty without one. Count is how many there are.
	Newest recoverystore.Point
	Count  int
	// Damaged is how many points are known to be damaged.
	Damaged int
	// StoreBytes is what the store takes on the file system.
	StoreBytes int64
	// Failure is why points cannot be stored, while that is so.
	Failure *umbrav1.Failure
}

func (s *Status) follow(rec record) {
	s.UID = rec.UID
	s.Generation, s.Epoch, s.StoppedEpoch = rec.Generation, rec.Epoch, rec.RefusedEpoch
	s.ResyncGeneration, s.Accepting = rec.ResyncGeneration, rec.Accept
}

// same compares what a reader would see; failures by identity, because each is made once.
func (s *Status) same(o *Status) bool {
	return s.UID == o.UID && s.Generation == o.Generation && s.Epoch == o.Epoch && s.StoppedEpoch == o.StoppedEpoch &&
		s.ResyncGeneration == o.ResyncGeneration && s.Accepting == o.Accepting && s.Receiving == o.Receiving &&
		s.Newest.ID == o.Newest.ID && s.Newest.Damaged == o.Newest.Damaged && s.Newest.Pinned == o.Newest.Pinned &&
		s.Count == o.Count && s.Damaged == o.Damaged && s.StoreBytes == o.StoreBytes && s.Failure == o.Failure
}

// Status returns the present status. Of a pair that is not here it is zero.
func (r *Replica) Status(name string) Status {
	r.mu.Lock()
	p := r.pairs[name]
	r.mu.Unlock()
	if p == nil {
		return Status{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// Refresh has the status say what the store holds now, after somebody else has changed it: deleted points, opened a view.
func (r *Replica) Refresh(name string) {
	r.mu.Lock()
	p := r.pairs[name]
	r.mu.Unlock()
	if p != nil {
		p.refresh()
	}
}

// refresh works the status out anew and tells whoever wants to know, if it changed.
func (p *pair) refresh() {
	var bytes int64
	if store := p.opened(); store != nil {
		u, err := store.Usage()
		if err != nil {
			p.log.Warn("usage of the store is unknown", "error", err)
		}
		bytes = u.AllocatedBytes + u.IndexBytes
	}
	p.mu.Lock()
	next := p.status
	next.follow(p.rec)
	next.Failure, next.StoreBytes = p.failure, bytes
	next.Newest, next.Count, next.Damaged = recoverystore.Point{}, 0, 0
	if p.store != nil {
		points := p.store.Points()
		next.Count = len(points)
		for i := range points {
			if points[i].Damaged {
				next.Damaged++
			}
		}
		if len(points) > 0 {
			next.Newest = points[len(points)-1]
		}
	}
	changed := !next.same(&p.status)
	p.status = next
	p.mu.Unlock()
	if changed {
		p.r.cfg.Changed(p.name)
	}
}

// setReceiving is part of the status that nothing else shows.
func (p *pair) setReceiving(on bool) {
	p.mu.Lock()
	changed := p.status.Receiving != on
	p.status.Receiving = on
	p.mu.Unlock()
	if changed {
		p.r.cfg.Changed(p.name)
	}
}

func (p *pair) setFailure(f *umbrav1.Failure) {
	p.mu.Lock()
	old := p.failure
	// The same failure seen again keeps the time at which it was seen first.
	if old != nil && old.GetReason() == f.GetReason() && old.GetMessage() == f.GetMessage() {
		p.mu.Unlock()
		return
	}
	p.failure = f
	p.mu.Unlock()
	p.refresh()
}

// clearFailure forgets the failure if it is one of those.
func (p *pair) clearFailure(which func(*umbrav1.Failure) bool) {
	p.mu.Lock()
	gone := p.failure != nil && which(p.failure)
	if gone {
		p.failure = nil
	}
	p.mu.Unlock()
	if gone {
		p.refresh()
	}
}
