package simulation_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// link is how one place reaches another: towards it and back.
type link struct{ from, to string }

// network is what everything in a world speaks over, in memory. Links can be cut and can stall, each way on its own.
type network struct {
	// speech is how everything in the world speaks; nil is as this version does.
	speech *speech

	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	down      map[link]bool
	gates     map[link]chan struct{} // of links that stall; closed when they go on
	delays    map[link]time.Duration // of links that are slow: what each message takes
	wires     map[*wire]bool
}

func newNetwork() *network {
	return &network{listeners: map[string]*bufconn.Listener{}, down: map[link]bool{}, gates: map[link]chan struct{}{}, delays: map[link]time.Duration{}, wires: map[*wire]bool{}}
}

var (
	errNobody = errors.New("connection refused")
	errCut    = errors.New("no route to host")
)

func (n *network) listen(place string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	listener := bufconn.Listen(1 << 20)
	n.listeners[place] = listener
	return listener
}

func (n *network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	out, in := linksOf(from, to)
	n.mu.Lock()
	listener, cut := n.listeners[to], n.down[out] || n.down[in]
	n.mu.Unlock()
	switch {
	case cut:
		return nil, errCut
	case listener == nil:
		return nil, errNobody
	}
	conn, err := listener.DialContext(ctx)
	if err != nil {
		return nil, errNobody
	}
	w := &wire{Conn: conn, network: n, machine: to, out: out, in: in, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.wires[w] = true
	return w, nil
}

// linksOf are the links of a connection. All control planes are behind one link, but for that between them.
func linksOf(from, to string) (out, in link) {
	if strings.HasPrefix(to, planePlace) && !strings.HasPrefix(from, planePlace) {
		to = planePlace
	}
	return link{from, to}, link{to, from}
}

// cut ends all connections between two places and lets no new ones be made.
func (n *network) cut(a, b string) {
	n.mu.Lock()
	n.down[link{a, b}] = true
	n.mu.Unlock()
	n.reset(a, b)
}

// stall holds what goes from one place to the other.
func (n *network) stall(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gates[link{from, to}] == nil {
		n.gates[link{from, to}] = make(chan struct{})
	}
}

// slow has each message from one place to the other take so long, and the next one wait for it.
func (n *network) slow(from, to string, each time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.delays[link{from, to}] = each
}

// reset ends all connections between two places.
func (n *network) reset(a, b string) {
	n.end(func(w *wire) bool { return w.between(a, b) || w.between(b, a) })
}

func (n *network) end(which func(*wire) bool) {
	n.mu.Lock()
	var hit []*wire
	for w := range n.wires {
		if which(w) {
			hit = append(hit, w)
		}
	}
	n.mu.Unlock()
	for _, w := range hit {
		_ = w.Close()
	}
}

// leave ends everything that a machine speaks, as its death does.
func (n *network) leave(machine string) {
	n.mu.Lock()
	listener := n.listeners[machine]
	delete(n.listeners, machine)
	n.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
	n.end(func(w *wire) bool { return w.machine == machine || w.out.from == machine })
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.down)
	clear(n.delays)
	for l, gate := range n.gates {
		close(gate)
		delete(n.gates, l)
	}
}

func (n *network) gate(l link) (gate chan struct{}, delay time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gates[l], n.delays[l]
}

// wire is the dialler's end of a connection.
type wire struct {
	net.Conn
	network *network
	machine string // which listens
	out, in link
	closed  chan struct{}
	once    sync.Once
}

func (w *wire) between(a, b string) bool {
	return w.out.from == a && w.out.to == b
}

func (w *wire) pass(l link) error {
	gate, delay := w.network.gate(l)
	if delay > 0 {
		late := time.NewTimer(delay)
		defer late.Stop()
		select {
		case <-late.C:
		case <-w.closed:
			return net.ErrClosed
		}
	}
	if gate == nil {
		return nil
	}
	select {
	case <-gate:
		return nil
	case <-w.closed:
		return net.ErrClosed
	}
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err == nil {
		err = w.pass(w.in)
	}
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	if err := w.pass(w.out); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

func (w *wire) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.network.mu.Lock()
		delete(w.network.wires, w)
		w.network.mu.Unlock()
	})
	return w.Conn.Close()
}
