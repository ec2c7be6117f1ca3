package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

var _ Replica = (*replica.Replica)(nil)

// fakeReplica keeps the promise of epochs, with a real store behind it.
type fakeReplica struct {
	world *world
	store *recoverystore.Store

	mu       sync.Mutex
	stopped  uint64 // survives hostd
	accepted map[string]uint64
	gone     bool // the store was deleted
}

func (r *fakeReplica) dir() string { return filepath.Join(r.world.storeDir(), pair) }

func (r *fakeReplica) open() {
	s, err := recoverystore.Open(context.Background(), r.dir(), recoverystore.Options{ReserveBytes: -1})
	if err != nil {
		r.world.t.Fatal(err)
	}
	r.store = s
}

func (r *fakeReplica) close() {
	if r.store != nil {
		if err := r.store.Close(); err != nil {
			r.world.t.Error(err)
		}
	}
	r.store = nil
}

func (r *fakeReplica) reopen() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.accepted = map[string]uint64{}
	if r.gone {
		return
	}
	r.close()
	r.open()
}

func (r *fakeReplica) Apply(_ context.Context, s replica.Spec) error {
	return r.world.effect("Apply", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if !s.Accept {
			r.stopped = max(r.stopped, s.Epoch)
			delete(r.accepted, s.Pair)
			return nil
		}
		if s.Epoch <= r.stopped {
			return fmt.Errorf("epoch %d is over", s.Epoch)
		}
		if left := r.world.target.defined(); len(left) > 0 {
			r.world.t.Errorf("streams are accepted while %v is defined", left)
		}
		r.accepted[s.Pair] = s.Epoch
		return nil
	})
}

func (r *fakeReplica) Store(string) (*recoverystore.Store, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.store == nil {
		return nil, errors.New("the store is not open")
	}
	return r.store, nil
}

// Refresh has nothing to do: Status looks into the store each time.
func (r *fakeReplica) Refresh(string) {}

func (r *fakeReplica) Status(string) replica.Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := replica.Status{StoppedEpoch: r.stopped}
	if r.store != nil {
		points := r.store.Points()
		s.Count = len(points)
		if len(points) > 0 {
			s.Newest = points[len(points)-1]
		}
	}
	return s
}

func (r *fakeReplica) Delete(context.Context, string) error {
	return r.world.effect("Delete", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.close()
		r.gone = true
		return os.RemoveAll(r.dir())
	})
}

// accepts tells whether any stream is accepted.
func (r *fakeReplica) accepts() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.accepted) > 0
}
