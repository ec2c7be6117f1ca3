package replicate

import (
	"cmp"
	"context"
	"hash/fnv"
	"slices"
	"sync"
	"time"
)

// slots lets a bounded number of cycles run at once. Of those who wait, the one that has been due for longest goes first.
type slots struct {
	mu   sync.Mutex
	line line
}

// ticket is one who waits. ready is closed when it has a slot.
type ticket struct {
	due   time.Time
	pair  string
	ready chan struct{}
}

// line is the order of service. It knows no clock and no goroutine.
type line struct {
	free    int
	waiting []*ticket // the most overdue first
}

// join puts a ticket in the line and returns those that get a slot by it.
func (l *line) join(t *ticket) []*ticket {
	at, _ := slices.BinarySearchFunc(l.waiting, t, func(a, b *ticket) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.pair, b.pair))
	})
	l.waiting = slices.Insert(l.waiting, at, t)
	return l.serve()
}

// leave takes a waiting ticket out. It returns false when the ticket is not waiting, so has a slot.
func (l *line) leave(t *ticket) bool {
	at := slices.Index(l.waiting, t)
	if at < 0 {
		return false
	}
	l.waiting = slices.Delete(l.waiting, at, at+1)
	return true
}

// giveBack returns a slot to the line, and those that get a slot by it.
func (l *line) giveBack() []*ticket {
	l.free++
	return l.serve()
}

func (l *line) serve() []*ticket {
	n := min(l.free, len(l.waiting))
	served := slices.Clone(l.waiting[:n])
	l.waiting = slices.Delete(l.waiting, 0, n)
	l.free -= n
	return served
}

// acquire waits for a slot. The caller owes a release when the error is nil.
func (s *slots) acquire(ctx context.Context, pair string, due time.Time) error {
	t := &ticket{due: due, pair: pair, ready: make(chan struct{})}
	s.mu.Lock()
	grant(s.line.join(t))
	s.mu.Unlock()
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.line.leave(t) {
		grant(s.line.giveBack())
	}
	return context.Cause(ctx)
}

func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	grant(s.line.giveBack())
}

func grant(served []*ticket) {
	for _, t := range served {
		close(t.ready)
	}
}

// spread is how long after its first chance a pair begins, so that the pairs of a host do not all begin together. It is
// always the same for a pair.
func spread(pair string, within time.Duration) time.Duration {
	if within <= 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(pair)) // a hash takes every write
	return time.Duration(h.Sum64() % uint64(within))
}
