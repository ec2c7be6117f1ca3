package identity

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// ErrRevoked means that the certificate at the other end has been revoked.
var ErrRevoked = errors.New("the certificate has been revoked")

// Peers knows the open connections of a process by who is at the other end, and which certificates count. It is safe for
// concurrent use. A nil Peers revokes nothing. Make it with NewPeers.
type Peers struct {
	mu    sync.Mutex
	least map[string]uint64
	open  map[string]map[*connection]struct{}
}

// NewPeers knows of nobody.
func NewPeers() *Peers {
	return &Peers{least: map[string]uint64{}, open: map[string]map[*connection]struct{}{}}
}

// Require makes certificates of the subject count only from that generation on. When it returns, connections with older
// ones are closed, in both directions, and none is made any more. What was required once is never taken back.
func (p *Peers) Require(subject string, generation uint64) {
	p.mu.Lock()
	var over []*connection
	if generation > p.least[subject] {
		p.least[subject] = generation
		for open := range p.open[subject] {
			if open.peer.Generation < generation {
				over = append(over, open)
			}
		}
	}
	p.mu.Unlock()
	for _, open := range over {
		_ = open.Close() // its streams learn of it as of any lost connection
	}
}

func (p *Peers) revoked(peer Peer) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.revokedLocked(peer)
}

func (p *Peers) revokedLocked(peer Peer) bool { return peer.Generation < p.least[peer.ID.Subject()] }

// admit notes an open connection. It judges once more: Require may have come since the handshake did.
func (p *Peers) admit(conn net.Conn, peer Peer) (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.revokedLocked(peer) {
		return nil, fmt.Errorf("%s: %w", peer.ID, ErrRevoked)
	}
	subject := peer.ID.Subject()
	noted := &connection{Conn: conn, peers: p, peer: peer}
	if p.open[subject] == nil {
		p.open[subject] = map[*connection]struct{}{}
	}
	p.open[subject][noted] = struct{}{}
	return noted, nil
}

// connection is one that is open, and known until it is closed.
type connection struct {
	net.Conn
	peers *Peers
	peer  Peer
}

func (c *connection) Close() error {
	c.peers.mu.Lock()
	subject := c.peer.ID.Subject()
	delete(c.peers.open[subject], c)
	if len(c.peers.open[subject]) == 0 {
		delete(c.peers.open, subject)
	}
	c.peers.mu.Unlock()
	return c.Conn.Close()
}

// watched makes the connections that pass its handshakes known to peers.
type watched struct {
	credentials.TransportCredentials
	peers *Peers
}

func (w watched) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	return w.note(conn, info, err)
}

func (w watched) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ServerHandshake(raw)
	return w.note(conn, info, err)
}

func (w watched) Clone() credentials.TransportCredentials {
	return watched{w.TransportCredentials.Clone(), w.peers}
}

func (w watched) note(conn net.Conn, info credentials.AuthInfo, err error) (net.Conn, credentials.AuthInfo, error) {
	if err != nil || w.peers == nil {
		return conn, info, err
	}
	peer, err := peerFrom(info)
	if errors.Is(err, ErrNoPeer) {
		return conn, info, nil
	}
	if err == nil {
		var noted net.Conn
		if noted, err = w.peers.admit(conn, peer); err == nil {
			return noted, info, nil
		}
	}
	return nil, nil, errors.Join(err, conn.Close())
}
