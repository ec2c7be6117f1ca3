package registry_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/controlplane/embedded"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/store"
	"github.com/umbra-dr/umbra/pkg/clock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

func startEtcd(t *testing.T) *clientv3.Client {
	t.Helper()
	client, stop, err := embedded.Start(t.Context(), t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// plane is what a control plane knows of hosts and others.
type plane struct {
	*registry.Registry
	hosts *observed.Hosts
	stop  func()
}

func startPlane(t *testing.T, client *clientv3.Client, address string) *plane {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil)).With("address", address)
	p := &plane{hosts: observed.New()}
	p.Registry = registry.New(registry.Config{
		Store: store.New(client, log), Observed: p.hosts, Clock: clock.System, Log: log, Address: address, TTL: time.Minute,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.stop)
	<-p.Ready()
	return p
}

// session is a host's session as its server sees it.
type session struct {
	number uint64
	ended  chan error
}

func (p *plane) enter(t *testing.T, host string) *session {
	t.Helper()
	s := &session{ended: make(chan error, 10)}
	number, err := p.Enter(t.Context(), host, func(cause error) { s.ended <- cause })
	if err != nil {
		t.Fatal(err)
	}
	s.number = number
	return s
}

// until waits until the host is known to be as is asked.
func (p *plane) until(t *testing.T, host string, is func(observed.Host) bool) observed.Host {
	t.Helper()
	changes := p.hosts.Connections().Subscribe()
	defer changes.Close()
	for {
		known, _ := p.hosts.Host(host)
		if is(known) {
			return known
		}
		select {
		case <-changes.C():
		case <-time.After(patience):
			t.Fatalf("host %s stays %+v", host, known)
		}
	}
}

func wait[T any](t *testing.T, what string, c <-chan T) (got T) {
	t.Helper()
	select {
	case got = <-c:
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
	}
	return got
}

func TestAHostsNewestSessionCountsWhereverItIs(t *testing.T) {
	client := startEtcd(t)
	one, two := startPlane(t, client, "one:1"), startPlane(t, client, "two:1")
	first := one.enter(t, "a")
	two.until(t, "a", func(h observed.Host) bool { return h.Connected && h.Holder == one.Self() && h.Session == first.number })
	second := two.enter(t, "a")
	if cause := wait(t, "the end of the older session", first.ended); !errors.Is(cause, registry.ErrReplaced) {
		t.Errorf("it ended with %v", cause)
	}
	if second.number <= first.number {
		t.Errorf("sessions %d, then %d", first.number, second.number)
	}
	// The older one's own end comes late, and says nothing.
	one.Leave("a", first.number)
	third := one.enter(t, "b")
	for _, p := range []*plane{one, two} {
		p.until(t, "b", func(h observed.Host) bool { return h.Connected && h.Session == third.number })
		a, _ := p.hosts.Host("a")
		b, _ := p.hosts.Host("b")
		if !a.Connected || a.Holder != two.Self() || a.Session != second.number || b.Holder != one.Self() {
			t.Errorf("known are %+v and %+v", a, b)
		}
	}
	two.Leave("a", second.number)
	gone := one.until(t, "a", func(h observed.Host) bool { return !h.Connected })
	if !gone.Left {
		t.Errorf("a host that left its control plane, which is there, is %+v", gone)
	}
	if err := context.Cause(one.Alive()); err != nil || len(second.ended) > 0 {
		t.Errorf("the control plane ended with %v", err)
	}
}

func TestControlPlanesKnowOneAnother(t *testing.T) {
	client := startEtcd(t)
	one := startPlane(t, client, "one:1")
	changes := one.Changes().Subscribe()
	defer changes.Close()
	two := startPlane(t, client, "two:1")
	for len(one.Others()) == 0 {
		wait(t, "the other", changes.C())
	}
	if others := one.Others(); others[0] != (store.ControlPlane{ID: two.Self(), Address: "two:1"}) {
		t.Errorf("one knows of %+v", others)
	}
	revokeLeaseOf(t, client, "/umbra/presence/control-planes/"+two.Self(), two.stop)
	for len(one.Others()) > 0 {
		wait(t, "the other's end", changes.C())
	}
}

// revokeLeaseOf ends the lease that a key is under, as its expiry does. before is called in time for nobody to renew it.
func revokeLeaseOf(t *testing.T, client *clientv3.Client, key string, before func()) {
	t.Helper()
	found, err := client.Get(t.Context(), key)
	if err != nil || len(found.Kvs) != 1 {
		t.Fatalf("key %s: %v, %v", key, found, err)
	}
	before()
	if _, err := client.Revoke(t.Context(), clientv3.LeaseID(found.Kvs[0].Lease)); err != nil {
		t.Fatal(err)
	}
}

func TestAControlPlaneThatLosesItsLeaseLosesItsSessionsAndNobodyCallsTheHostsGone(t *testing.T) {
	client := startEtcd(t)
	one, two := startPlane(t, client, "one:1"), startPlane(t, client, "two:1")
	leases := one.Changes().Subscribe()
	defer leases.Close()
	lost, moved, left := one.enter(t, "lost"), one.enter(t, "moved"), one.enter(t, "left")
	alive := one.Alive()
	newer := two.enter(t, "moved")
	if cause := wait(t, "the end of the session that moved", moved.ended); !errors.Is(cause, registry.ErrReplaced) {
		t.Errorf("it ended with %v", cause)
	}
	one.Leave("left", left.number)
	two.until(t, "left", func(h observed.Host) bool { return !h.Connected && h.Left })
	revokeLeaseOf(t, client, "/umbra/presence/control-planes/"+one.Self(), func() {})
	if cause := wait(t, "the end of the session", lost.ended); !errors.Is(cause, registry.ErrLost) {
		t.Errorf("it ended with %v", cause)
	}
	wait(t, "the end of the lease", alive.Done())
	if cause := context.Cause(alive); !errors.Is(cause, registry.ErrLost) {
		t.Errorf("the lease ended with %v", cause)
	}
	for _, p := range []*plane{one, two} {
		if h := p.until(t, "lost", func(h observed.Host) bool { return !h.Connected && h.Session == lost.number }); h.Left {
			t.Errorf("a host that has lost its control plane is %+v", h)
		}
		if h, _ := p.hosts.Host("moved"); !h.Connected || h.Session != newer.number {
			t.Errorf("a host that has a newer session is %+v", h)
		}
	}
	// It comes back by itself, and takes sessions again.
	for one.Alive().Err() != nil {
		wait(t, "another lease", leases.C())
	}
	one.enter(t, "again")
	two.until(t, "again", func(h observed.Host) bool { return h.Connected && h.Holder == one.Self() })
}

func TestAControlPlaneThatStopsLeavesItsSessionsForTheHostsToMove(t *testing.T) {
	client := startEtcd(t)
	one, two := startPlane(t, client, "one:1"), startPlane(t, client, "two:1")
	session := one.enter(t, "a")
	one.stop()
	if cause := wait(t, "the end of the session", session.ended); cause == nil {
		t.Error("it ended for no reason")
	}
	if _, err := one.Enter(t.Context(), "b", func(error) {}); !errors.Is(err, registry.ErrLost) {
		t.Errorf("a session began after the stop: %v", err)
	}
	if a := two.until(t, "a", func(h observed.Host) bool { return h.Session == session.number }); !a.Connected {
		t.Errorf("the host is %+v", a)
	}
	two.enter(t, "a")
	two.until(t, "a", func(h observed.Host) bool { return h.Connected && h.Holder == two.Self() })
}

// Hosts that dial all control planes without pause: at the end all agree, and a host was never shown as gone.
func TestAHostThatKeepsMovingIsNeverShownAsGone(t *testing.T) {
	const rounds = 60
	client := startEtcd(t)
	planes := []*plane{startPlane(t, client, "one:1"), startPlane(t, client, "two:1"), startPlane(t, client, "three:1")}
	planes[0].enter(t, "a")
	for _, p := range planes {
		p.until(t, "a", func(h observed.Host) bool { return h.Connected })
	}
	stop := make(chan struct{})
	var watching, moving sync.WaitGroup
	for _, p := range planes {
		changes := p.hosts.Connections().Subscribe()
		watching.Go(func() {
			defer changes.Close()
			for {
				select {
				case <-stop:
					return
				case <-changes.C():
					if h, _ := p.hosts.Host("a"); !h.Connected {
						t.Errorf("the host is shown as %+v", h)
						return
					}
				}
			}
		})
	}
	var mu sync.Mutex
	newest := uint64(0)
	for _, p := range planes {
		moving.Go(func() {
			for range rounds {
				number, err := p.Enter(t.Context(), "a", func(error) {})
				switch {
				case errors.Is(err, registry.ErrReplaced):
					continue
				case err != nil:
					t.Error(err)
					return
				}
				mu.Lock()
				newest = max(newest, number)
				mu.Unlock()
			}
		})
	}
	moving.Wait()
	close(stop)
	watching.Wait()
	for _, p := range planes {
		p.until(t, "a", func(h observed.Host) bool { return h.Connected && h.Session >= newest })
	}
}
