// Package peer lets the control planes on one etcd show and ask what only one of them has at hand: each tells the others
// what the hosts report that have their session with it, and passes questions on to them.
//
// Nothing is decided from that. A control plane that cannot be reached makes figures old at the others, and its hosts
// cannot be asked through them until it is back or its hosts have their session elsewhere.
package peer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

const (
	// beatDefault is how often news is told. Watchers of the API get figures no faster either.
	beatDefault = time.Second
	// redialAfter is the pause after a stream that failed.
	redialAfter = time.Second
	// batchBytesMax is how large a message may become before another is begun.
	batchBytesMax = 1 << 20
	// messageBytesMax is more than a host may send in one message, or the files of a support bundle take.
	messageBytesMax = 16 << 20
)

// ControlPlanes are those on the same etcd. *registry.Registry is one.
type ControlPlanes interface {
	Self() string
	Others() []store.ControlPlane
	Changes() *feed.Feed[string]
}

// Config is what Peers work with.
type Config struct {
	ControlPlanes ControlPlanes
	Observed      *observed.Hosts
	// Dial makes a connection to the control plane at an address. It does not block.
	Dial  func(address string) (*grpc.ClientConn, error)
	Clock clock.Clock
	Log   *slog.Logger
	// Beat is how often Observe tells news. 0 means a second.
	Beat time.Duration
}

// Peers are the other control planes. Safe for concurrent use.
type Peers struct {
	Config

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // by id
}

// New makes Peers. They are followed while Run runs.
func New(cfg Config) *Peers {
	if cfg.Beat <= 0 {
		cfg.Beat = beatDefault
	}
	return &Peers{Config: cfg, conns: map[string]*grpc.ClientConn{}}
}

// follower follows one control plane.
type follower struct {
	stop  context.CancelFunc
	ended chan struct{}
}

// Run notes in package observed what the other control planes tell, until the context ends. It returns nil then.
func (p *Peers) Run(ctx context.Context) error {
	changes := p.ControlPlanes.Changes().Subscribe()
	defer changes.Close()
	followers := map[string]*follower{}
	defer func() {
		for id, f := range followers {
			p.leave(id, f)
		}
	}()
	for {
		there := map[string]bool{}
		for _, plane := range p.ControlPlanes.Others() {
			there[plane.ID] = true
			if followers[plane.ID] == nil && plane.Address != "" {
				followers[plane.ID] = p.begin(ctx, plane)
			}
		}
		for id, f := range followers {
			if !there[id] {
				p.leave(id, f)
				delete(followers, id)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes.C():
			changes.Take()
		}
	}
}

func (p *Peers) begin(ctx context.Context, plane store.ControlPlane) *follower {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{stop: cancel, ended: make(chan struct{})}
	conn, err := p.Dial(plane.Address)
	if err != nil {
		p.Log.Error("a control plane has an address that cannot be dialled", "control_plane", plane.ID, "address", plane.Address, "error", err)
		close(f.ended)
		return f
	}
	p.mu.Lock()
	p.conns[plane.ID] = conn
	p.mu.Unlock()
	go func() {
		defer close(f.ended)
		p.follow(ctx, plane, conn)
	}()
	return f
}

func (p *Peers) leave(id string, f *follower) {
	f.stop()
	<-f.ended
	p.mu.Lock()
	conn := p.conns[id]
	delete(p.conns, id)
	p.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // it fails only when it was closed before
	}
}

// follow takes in what one control plane tells until the context ends.
func (p *Peers) follow(ctx context.Context, plane store.ControlPlane, conn *grpc.ClientConn) {
	log := p.Log.With("control_plane", plane.ID, "address", plane.Address)
	for ctx.Err() == nil {
		err := p.observe(ctx, plane, conn, log)
		if ctx.Err() != nil {
			return
		}
		log.Warn("another control plane does not tell what its hosts report; trying again", "error", err)
		_ = p.Clock.Wait(ctx, redialAfter) // a context that has ended is seen next
	}
}

func (p *Peers) observe(ctx context.Context, plane store.ControlPlane, conn *grpc.ClientConn, log *slog.Logger) error {
	stream, err := umbrav1.NewPeerServiceClient(conn).Observe(ctx, &umbrav1.ObserveRequest{ControlPlane: plane.ID},
		grpc.MaxCallRecvMsgSize(messageBytesMax))
	if err != nil {
		return fmt.Errorf("asking for reports: %w", err)
	}
	for {
		news, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("waiting for reports: %w", err)
		}
		for _, observation := range news.GetObservations() {
			p.take(observation, log)
		}
	}
}

// take notes one observation, unless something newer is known.
func (p *Peers) take(told *umbrav1.Observation, log *slog.Logger) {
	at := told.GetReceiveTime().AsTime()
	switch what := told.GetWhat().(type) {
	case *umbrav1.Observation_Report:
		p.Observed.SetReport(told.GetHost(), told.GetSession(), what.Report, at)
	case *umbrav1.Observation_Inventory:
		p.Observed.SetInventory(told.GetHost(), told.GetSession(), what.Inventory, at)
	default:
		log.Debug("an observation of a kind that is not known here", "host", told.GetHost())
	}
}

func (p *Peers) conn(id string) *grpc.ClientConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[id]
}
