package shadowserver

import (
	"context"
	"sync"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// Role runs the shadow role of this host. Make it with New; its methods are safe for concurrent use.
type Role struct {
	cfg  Config
	kick chan struct{} // the desired set has changed; room for one

	mu      sync.Mutex
	desired map[string]*umbrav1.Assignment
	workers map[string]*worker
}

// New makes the role. Nothing happens before Run. The error says what of the configuration cannot work.
func New(cfg Config) (*Role, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Role{
		cfg:     cfg,
		kick:    make(chan struct{}, 1),
		desired: map[string]*umbrav1.Assignment{},
		workers: map[string]*worker{},
	}, nil
}

// Assign gives the complete set of assignments and returns at once. Those without a shadow role are ignored. A pair
// that is no longer named is forgotten: no more work is done for it, and everything of it stays as it is.
func (r *Role) Assign(set []*umbrav1.Assignment) {
	desired := make(map[string]*umbrav1.Assignment, len(set))
	for _, a := range set {
		if a.GetShadow() == nil {
			continue
		}
		if !plainName(a.GetDrPair()) {
			r.cfg.Log.Error("assignment of a pair whose id cannot name a folder", "pair", a.GetDrPair())
			continue
		}
		desired[a.GetDrPair()] = a
	}
	r.mu.Lock()
	r.desired = desired
	for pair, w := range r.workers {
		if a := desired[pair]; a != nil {
			w.assign(a)
		}
	}
	r.mu.Unlock()
	wake(r.kick)
}

// Changed says that the replica's status of a pair has changed, so that it is reported anew.
func (r *Role) Changed(pair string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.workers[pair]; w != nil {
		wake(w.news)
		wake(w.publish)
	}
}

// Run works until the context ends, and returns when all its work has stopped. It is called once.
func (r *Role) Run(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		r.follow(ctx, &running)
		select {
		case <-ctx.Done():
			return nil
		case <-r.kick:
		}
	}
}

// follow starts workers for new pairs and ends those of forgotten ones. A pair that is forgotten and named again
// gets a new worker that waits for the end of the old one.
func (r *Role) follow(ctx context.Context, running *sync.WaitGroup) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pair, w := range r.workers {
		if r.desired[pair] == nil {
			w.forget()
		}
	}
	for pair, a := range r.desired {
		old := r.workers[pair]
		if old != nil && !old.forgotten {
			continue
		}
		w := newWorker(ctx, &r.cfg, pair, a)
		r.workers[pair] = w
		running.Go(func() {
			if old != nil {
				<-old.done
			}
			w.run()
			r.remove(pair, w)
		})
	}
}

func (r *Role) remove(pair string, w *worker) {
	close(w.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.workers[pair] == w {
		delete(r.workers, pair)
	}
}

// wake puts a token into a channel of size one, unless one is there.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
