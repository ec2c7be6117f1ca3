// Package feed tells readers which keys have changed, without ever making the writer wait. A reader that is slow
// gets each changed key once, however often it changed meanwhile, and looks up its latest value itself: so the most
// that is kept for a reader is one entry a key.
package feed

import "sync"

// Feed is safe for concurrent use. The zero value is ready.
type Feed[K comparable] struct {
	mu   sync.Mutex
	subs map[*Subscription[K]]struct{}
}

// Publish tells every subscriber that these keys have changed. It does not block.
func (f *Feed[K]) Publish(keys ...K) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for sub := range f.subs {
		sub.add(keys)
	}
}

// Subscribe begins a subscription to all that is published from now on. Close it when done.
func (f *Feed[K]) Subscribe() *Subscription[K] {
	sub := &Subscription[K]{feed: f, wake: make(chan struct{}, 1), changed: map[K]struct{}{}}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subs == nil {
		f.subs = map[*Subscription[K]]struct{}{}
	}
	f.subs[sub] = struct{}{}
	return sub
}

// Subscription collects changed keys for one reader.
type Subscription[K comparable] struct {
	feed    *Feed[K]
	wake    chan struct{}
	mu      sync.Mutex
	changed map[K]struct{}
}

// C delivers a value when there may be something to Take.
func (s *Subscription[K]) C() <-chan struct{} { return s.wake }

// Take returns the keys that changed since the last Take, in no order.
func (s *Subscription[K]) Take() []K {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]K, 0, len(s.changed))
	for key := range s.changed {
		keys = append(keys, key)
	}
	clear(s.changed)
	return keys
}

// Close ends the subscription.
func (s *Subscription[K]) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	delete(s.feed.subs, s)
}

func (s *Subscription[K]) add(keys []K) {
	s.mu.Lock()
	for _, key := range keys {
		s.changed[key] = struct{}{}
	}
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
