package libvirt

import (
	"context"
	"errors"
	"sync"
)

// connectionsMax bounds the connections to libvirtd, and so the calls at once. libvirtd allows 20 clients that it has
// not yet authenticated, and has 20 workers for all of its clients.
const connectionsMax = 10

var errClosed = errors.New("the hypervisor is closed")

// pool keeps connections for the next call. Safe for concurrent use.
type pool struct {
	path  string
	slots chan struct{} // one token for each connection that may be in use

	mu     sync.Mutex
	idle   []*connection // the one used last is last
	closed bool
}

func newPool(path string) *pool {
	return &pool{path: path, slots: make(chan struct{}, connectionsMax)}
}

// take returns a connection for one call; give it back with put.
func (p *pool) take(ctx context.Context) (*connection, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c, err := p.pick(ctx)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return c, nil
}

func (p *pool) pick(ctx context.Context) (*connection, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if c.usable() {
			p.mu.Unlock()
			return c, nil
		}
		c.close()
	}
	p.mu.Unlock()
	return dial(ctx, p.path)
}

func (p *pool) put(c *connection) {
	defer func() { <-p.slots }()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !c.usable() {
		c.close()
		return
	}
	p.idle = append(p.idle, c)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}
