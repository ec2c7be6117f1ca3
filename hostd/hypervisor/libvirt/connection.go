package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	rpc "github.com/digitalocean/go-libvirt"
)

// connection is one socket to libvirtd. It serves one call at a time, so that giving a call up costs nobody else theirs.
type connection struct {
	socket *watched
	rpc    *rpc.Libvirt
}

// watched is a socket that remembers that reading from it failed.
type watched struct {
	net.Conn
	lost atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.lost.Store(true)
	}
	return n, err
}

// dialed hands a socket that is connected already to go-libvirt.
type dialed struct{ net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.Conn, nil }

func dial(ctx context.Context, path string) (*connection, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if errors.Is(err, context.DeadlineExceeded) {
		// The dialer is a moment ahead of the context whose deadline it keeps.
		<-ctx.Done()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("dial libvirt: %w", err)
	}
	socket := &watched{Conn: raw}
	c := &connection{socket: socket, rpc: rpc.NewWithDialer(dialed{socket})}
	if err := c.run(ctx, func(l *rpc.Libvirt) error { return l.ConnectToURI(rpc.QEMUSystem) }); err != nil {
		c.close()
		return nil, fmt.Errorf("open a connection to libvirt: %w", err)
	}
	return c, nil
}

// run makes a call that ends with the context. go-libvirt's calls take none; closing the socket is what ends them.
func (c *connection) run(ctx context.Context, call func(*rpc.Libvirt) error) error {
	var err error
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		err = call(c.rpc)
	}()
	select {
	case <-returned:
		return err
	case <-ctx.Done():
		c.close()
		<-returned
		return context.Cause(ctx)
	}
}

func (c *connection) usable() bool { return !c.socket.lost.Load() }

// close closes the socket without a farewell, which could hang; libvirtd notices by itself.
func (c *connection) close() {
	c.socket.lost.Store(true)
	_ = c.socket.Close()
}
