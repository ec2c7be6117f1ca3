// Package registry knows which control planes work on one etcd and which of them has which host's session. It is what
// lets any number of them work at once, without a leader:
//
//   - Each control plane holds a lease. While it does, it is alive: it serves, and hosts have sessions with it. When it
//     loses the lease, by a stall or because it does not reach etcd, its sessions end, and hosts dial another one.
//   - A host's session is a key under that lease. The revision at which the key was stored is the session's number; the
//     newest is the host's session, and ends an older one wherever that is.
//   - What follows from a session is stored only while its key stands (store.Commit), so a control plane that has been
//     overtaken and does not know yet changes nothing.
//
// What it knows it tells to package observed.
package registry

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

const (
	// retryAfter is the pause after something that failed at etcd.
	retryAfter = 500 * time.Millisecond
	// enterTimeout bounds the wait for etcd when a session begins.
	enterTimeout = 5 * time.Second
	// leavesMax is how many ended sessions are removed at once.
	leavesMax = 16
)

var (
	// ErrReplaced is why a session ends when the host has a newer one.
	ErrReplaced = errors.New("a newer session of this host has begun")
	// ErrLost is why everything ends when the lease is lost.
	ErrLost = errors.New("this control plane has lost touch with etcd")
)

// Config is what a Registry works with.
type Config struct {
	Store    *store.Store
	Observed *observed.Hosts
	Clock    clock.Clock
	Log      *slog.Logger
	// Address is where other control planes reach this one, "address:port". Empty if they cannot.
	Address string
	// TTL is how long the lease lasts when it is not renewed.
	TTL time.Duration
}

// Registry is safe for concurrent use. It works while Run runs.
type Registry struct {
	Config
	self    store.ControlPlane
	ready   chan struct{}
	changed feed.Feed[string]
	news    chan struct{} // of size 1: something is in leaving

	mu       sync.Mutex
	lease    *store.Life     // nil while there is none
	alive    context.Context // ends with the lease
	giveUp   func()          // ends alive
	filled   bool
	planes   map[string]store.ControlPlane
	sessions map[string]store.HeldSession // by host, as etcd has them
	mine     map[string]mine              // by host
	leaving  map[store.Session]struct{}   // ended here, and not removed yet
}

// mine is a session that a host has here.
type mine struct {
	number uint64
	end    context.CancelCauseFunc
}

// New makes a registry.
func New(cfg Config) *Registry {
	none, lost := context.WithCancelCause(context.Background())
	lost(ErrLost)
	return &Registry{
		Config: cfg, self: store.ControlPlane{ID: uuid.NewString(), Address: cfg.Address},
		ready: make(chan struct{}), news: make(chan struct{}, 1), alive: none, giveUp: func() {},
		planes: map[string]store.ControlPlane{}, sessions: map[string]store.HeldSession{},
		mine: map[string]mine{}, leaving: map[store.Session]struct{}{},
	}
}

// Self is the id of this control plane. Each life of the process has another.
func (r *Registry) Self() string { return r.self.ID }

// Ready is closed when the lease was held, and everything known, for the first time.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Alive is a context that ends, with ErrLost, when the lease is lost that is held now. If none is held it has ended.
func (r *Registry) Alive() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.alive
}

// Changes tells the ids of control planes that have come or gone, this one included.
func (r *Registry) Changes() *feed.Feed[string] { return &r.changed }

// Others are the control planes that are there beside this one, by id.
func (r *Registry) Others() []store.ControlPlane {
	r.mu.Lock()
	defer r.mu.Unlock()
	others := make([]store.ControlPlane, 0, len(r.planes))
	for id, plane := range r.planes {
		if id != r.self.ID {
			others = append(others, plane)
		}
	}
	slices.SortFunc(others, func(a, b store.ControlPlane) int { return strings.Compare(a.ID, b.ID) })
	return others
}

// Run holds the lease and follows etcd until the context ends, and returns nil then. The sessions stay in etcd for what
// is left of the lease: their hosts are dialling others meanwhile, and are not to be taken for gone.
func (r *Registry) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	for what, once := range map[string]func(context.Context) error{
		"the lease": r.hold, "the control planes and sessions": r.follow, "the sessions that have ended": r.remove,
	} {
		work.Go(func() {
			for ctx.Err() == nil {
				if err := once(ctx); ctx.Err() == nil {
					r.Log.Warn("the registry has lost touch with etcd and tries again", "about", what, "error", err)
					_ = r.Clock.Wait(ctx, retryAfter) // a context that has ended is seen next
				}
			}
		})
	}
	return nil
}

// hold holds one lease until it is lost.
func (r *Registry) hold(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(ErrLost)
	lease, err := r.Store.Begin(ctx, r.self, r.TTL)
	if err != nil {
		return err
	}
	r.Log.Info("this control plane works", "control_plane", r.self.ID, "address", r.self.Address)
	r.begin(ctx, lease, func() { cancel(ErrLost) })
	lease.Wait()
	cancel(ErrLost)
	r.end()
	return ErrLost
}

// begin takes over a lease, which is held as long as the context lasts.
func (r *Registry) begin(alive context.Context, lease *store.Life, giveUp func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lease, r.alive, r.giveUp = lease, alive, giveUp
	r.settle()
	r.changed.Publish(r.self.ID)
}

// end ends what ends with the lease: all sessions.
func (r *Registry) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lease, r.giveUp = nil, func() {}
	r.changed.Publish(r.self.ID)
	for host, session := range r.mine {
		session.end(ErrLost)
		delete(r.mine, host)
	}
}

// settle notes when everything is there for the first time. r.mu is held.
func (r *Registry) settle() {
	select {
	case <-r.ready:
	default:
		if r.filled && r.lease != nil {
			close(r.ready)
		}
	}
}
