package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/diagnostics"
	"github.com/umbra-dr/umbra/hostd/inventory"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/hostd/replicate"
	"github.com/umbra-dr/umbra/hostd/session"
	"github.com/umbra-dr/umbra/hostd/shadowserver"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// planePlace is where the control planes are, as links go; each is a machine there.
const planePlace = "plane"

// dataPort is said, as hosts say it, and not used: a machine has one listener here.
const dataPort = "7444"

var planeMachines = []string{"plane-1", "plane-2"}

var quickReconnects = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1.5, MaxDelay: 50 * time.Millisecond},
	MinConnectTimeout: time.Second,
}

// host is a machine with folders, a clock and a hypervisor, on which one daemon after the other lives.
type host struct {
	id      string
	dir     string
	network *network
	machine *machine
	clock   fastClock
	log     *slog.Logger
	boot    int
	// storeFault is asked at each step of a store's commit.
	storeFault atomic.Pointer[func(recoverystore.Failpoint) error]
	// fenced is set while no byte may reach a store; late is what reached one all the same.
	fenced atomic.Bool
	late   atomic.Pointer[recoverystore.Failpoint]

	mu     sync.Mutex
	daemon *daemon // nil while none runs
}

func newHost(id, dir string, network *network, began time.Time, seed uint64, log *slog.Logger) (*host, error) {
	h := &host{
		id: id, dir: filepath.Join(dir, id), network: network, machine: newMachine(seed), clock: newClock(began),
		log: log.With("host", id), boot: 1,
	}
	for _, folder := range []string{h.store(), h.servers(), h.run()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *host) state() string   { return filepath.Join(h.dir, "state") }
func (h *host) store() string   { return filepath.Join(h.dir, "store") }
func (h *host) servers() string { return filepath.Join(h.dir, "servers") }
func (h *host) run() string     { return filepath.Join(h.dir, "run") }

// daemon is one life of hostd.
type daemon struct {
	journal *journal.Journal
	replica *replica.Replica
	kill    func() error
}

func (h *host) alive() *daemon {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.daemon
}

// stores notes a step of a store's commit.
func (h *host) stores(p recoverystore.Failpoint) {
	switch p {
	case recoverystore.FailDataWritten, recoverystore.FailAfterIndex:
		if h.fenced.Load() {
			h.late.Store(&p)
		}
	}
}

// kill ends the daemon: from one instant on nothing of it reaches the hypervisor or the network. What it was writing to its own
// files at that instant may still be written, as by a kill a little later.
func (h *host) kill() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daemon == nil {
		return nil
	}
	d := h.daemon
	h.daemon = nil
	return d.kill()
}

// start begins a life of hostd, wired as its command does it. One that is alive is no error.
func (h *host) start() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.daemon != nil {
		return nil
	}
	d, err := h.live()
	if err != nil {
		return fmt.Errorf("starting hostd on %s: %w", h.id, err)
	}
	h.daemon = d
	return nil
}

func (h *host) live() (*daemon, error) {
	kept, err := journal.Open(h.state())
	if err != nil {
		return nil, err
	}
	life, die := context.WithCancel(context.Background())
	hands, outbox := grip{h.machine, life}, session.NewOutbox()
	var shadow *shadowserver.Role
	received, err := replica.New(replica.Config{
		StoreDir: h.store(), Journal: kept, Clock: h.clock, Log: h.log,
		Store: recoverystore.Options{ReserveBytes: -1, Faults: func(p recoverystore.Failpoint) error {
			h.stores(p)
			if fault := h.storeFault.Load(); fault != nil {
				return (*fault)(p)
			}
			return nil
		}},
		Changed: func(pair string) { shadow.Changed(pair) },
	})
	if err != nil {
		die()
		return nil, errors.Join(err, kept.Close())
	}
	shadow, err = shadowserver.New(shadowserver.Config{
		StoreDir: h.store(), ServersDir: h.servers(), Replica: received, Target: hands, Journal: kept, Clock: h.clock, Log: h.log,
		Report: outbox.Report, FreeBytesMin: 1, LinkExists: func(string) bool { return true },
	})
	if err != nil {
		die()
		return nil, errors.Join(err, kept.Close())
	}
	main := &mainRole{}
	main.Replicator, err = replicate.New(replicate.Config{
		RunDir: h.run(), Source: hands, Journal: kept, Clock: h.clock, Log: h.log, Report: outbox.Report,
		Dial: func(address, _ string) (*transport.Conn, error) {
			return transport.Dialer{
				Credentials: insecure.NewCredentials(),
				DialContext: func(ctx context.Context, address string) (net.Conn, error) {
					machine, _, err := net.SplitHostPort(address)
					if err != nil {
						return nil, err
					}
					return h.network.dial(ctx, h.id, machine)
				},
				OneConnection: h.network.speech != nil, // it speaks by gRPC
				Options:       append(h.network.speech.ofClient(), grpc.WithConnectParams(quickReconnects)),
			}.Dial(address)
		},
		Confirmed: main.confirmed.Load, BootID: fmt.Sprintf("boot-%d", h.boot),
	})
	if err != nil {
		die()
		return nil, errors.Join(err, kept.Close())
	}
	plane, err := dialPlanes(h.network, h.id)
	if err != nil {
		die()
		return nil, errors.Join(err, kept.Close())
	}
	answers := &diagnostics.Answers{StateDir: h.state(), Hypervisor: hands, Store: received.Store, Server: func(string) string { return "" }}
	has := inventory.Config{Host: h.id, DataAddress: net.JoinHostPort(h.id, dataPort), StoreDir: h.store(), Hypervisor: hands}
	talk := session.New(session.Config{
		Host: h.id, Conn: plane, Journal: kept, Clock: h.clock, Log: h.log, Main: main, Shadow: shadowRole{shadow}, Answerer: answers,
		Inventory:      func(ctx context.Context) (*umbrav1.Host, error) { return inventory.Take(ctx, has) },
		InventoryEvery: 10 * time.Second,
	}, outbox)
	server := transport.NewServer(insecure.NewCredentials(), received.Handle(nil), h.network.speech.ofReplication()...)
	listener := h.network.listen(h.id)
	var work sync.WaitGroup
	work.Go(func() { _ = received.Run(life) })
	work.Go(func() { _ = shadow.Run(life) })
	work.Go(func() { _ = main.Run(life) })
	work.Go(func() { _ = talk.Run(life) })
	work.Go(func() { _ = server.Serve(listener) })
	return &daemon{journal: kept, replica: received, kill: func() error {
		die()
		h.network.leave(h.id)
		server.Stop()
		work.Wait()
		return errors.Join(plane.Close(), kept.Close())
	}}, nil
}

// mainRole also knows whether the control plane has confirmed the assignments in this life.
type mainRole struct {
	*replicate.Replicator
	confirmed atomic.Bool
}

func (m *mainRole) Assign(set []*umbrav1.Assignment, live bool) {
	if live {
		m.confirmed.Store(true)
	}
	m.Replicator.Assign(set)
}

type shadowRole struct{ *shadowserver.Role }

func (s shadowRole) Assign(set []*umbrav1.Assignment, _ bool) { s.Role.Assign(set) }
