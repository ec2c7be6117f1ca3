package enrolment

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/identity"
)

const followRetry = time.Second

// Identities tells what is stored of identities. *store.Store is one.
type Identities interface {
	FollowIdentities(ctx context.Context, each func(store.Identity), complete func()) error
}

// Revocations is the picture, in memory, of which certificates count. It is safe for concurrent use.
type Revocations struct {
	identities Identities
	peers      *identity.Peers
	clock      clock.Clock
	log        *slog.Logger
	ready      chan struct{}
	once       sync.Once

	mu      sync.Mutex
	least   map[string]uint64 // by host
	changed func(host string)
}

// NewRevocations makes the picture; Run fills it. Connections of peers whose certificates do not count are cut.
func NewRevocations(identities Identities, peers *identity.Peers, clock clock.Clock, log *slog.Logger) *Revocations {
	return &Revocations{
		identities: identities, peers: peers, clock: clock, log: log, ready: make(chan struct{}), least: map[string]uint64{},
		changed: func(string) {},
	}
}

// OnChange has the function called, with its id, for each host whose certificates count from another generation on.
// It is called before Run.
func (r *Revocations) OnChange(changed func(host string)) { r.changed = changed }

// Ready is closed when the picture is complete. Nobody is served before that: a revoked one could be among them.
func (r *Revocations) Ready() <-chan struct{} { return r.ready }

// Least is the least generation of the host's certificates that counts.
func (r *Revocations) Least(host string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.least[host]
}

// Run follows the store until the context ends. When it loses it, everything is read again; what was known still counts.
func (r *Revocations) Run(ctx context.Context) error {
	for {
		err := r.identities.FollowIdentities(ctx, r.take, func() { r.once.Do(func() { close(r.ready) }) })
		if ctx.Err() != nil {
			return nil
		}
		r.log.Warn("identities are not followed for a moment", "error", err)
		if r.clock.Wait(ctx, followRetry) != nil {
			return nil
		}
	}
}

func (r *Revocations) take(i store.Identity) {
	r.peers.Require(i.Subject, i.Least)
	host, ok := strings.CutPrefix(i.Subject, identity.HostSubject(""))
	if !ok {
		return
	}
	r.mu.Lock()
	moved := i.Least > r.least[host]
	if moved {
		r.least[host] = i.Least
	}
	r.mu.Unlock()
	if moved {
		r.changed(host)
	}
}
