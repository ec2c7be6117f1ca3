package nbd

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Client is one connection to one export. All methods may be called by any number of goroutines at once.
type Client struct {
	conn   net.Conn
	export export

	// slots holds a token for every request whose reply is not complete. A token goes back only when the server has
	// finished with the request, or never, if the connection dies first.
	slots chan struct{}
	// queue leads to the sender. It has room for every slot, and a request leaves it before its slot can come back, so
	// putting one there never blocks.
	queue chan *request
	// dead is closed when the connection has ended; cause is set before and not changed afterwards.
	dead  chan struct{}
	cause error

	handover handover
	workers  sync.WaitGroup

	mu         sync.Mutex
	pending    map[uint64]*request // what was sent, by handle
	nextHandle uint64
	ended      bool
}

func prepareClient(conn net.Conn, e export, inFlightMax int) *Client {
	return &Client{
		conn:     conn,
		export:   e,
		slots:    make(chan struct{}, inFlightMax),
		queue:    make(chan *request, inFlightMax),
		dead:     make(chan struct{}),
		handover: handover{conn: conn},
		pending:  make(map[uint64]*request, inFlightMax),
	}
}

func (c *Client) run() {
	c.workers.Go(c.send)
	c.workers.Go(c.receive)
}

// Size is the size of the export in bytes.
func (c *Client) Size() uint64 { return c.export.size }

// MinBlock is what offsets and lengths of requests must be multiples of, in bytes. The protocol's default is 1.
func (c *Client) MinBlock() uint32 { return c.export.minBlock }

// PreferredBlock is the smallest request that the server serves efficiently, in bytes. The protocol's default is 4096.
func (c *Client) PreferredBlock() uint32 { return c.export.preferredBlock }

// MaxBlock is the longest read the server takes as one request, in bytes. The protocol's default is 32 MiB, and a
// server without a limit reports 2^32-1. ReadAt splits what is longer.
func (c *Client) MaxBlock() uint32 { return c.export.maxBlock }

// HasContext tells whether the server granted the metadata context, by the name it has in Config.MetaContexts.
func (c *Client) HasContext(name string) bool {
	_, ok := c.export.contexts[name]
	return ok
}

// ReadOnly tells whether the server says that the export cannot be written.
func (c *Client) ReadOnly() bool { return c.export.flags&transmissionReadOnly != 0 }

// MultiConn tells whether the server promises a consistent view over several connections to this export.
func (c *Client) MultiConn() bool { return c.export.flags&transmissionCanMultiConn != 0 }

// Close says goodbye to the server, ends the connection and waits for the Client's goroutines. Requests under way fail
// with ErrClosed. It never waits for the server. It may be called more than once and always returns nil.
func (c *Client) Close() error {
	c.end(ErrClosed)
	c.workers.Wait()
	return nil
}

// end makes the connection dead for the given reason, unless it is dead already.
func (c *Client) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.cause = true, cause
	if errors.Is(cause, ErrClosed) {
		// The socket stays open for the sender's goodbye; only a write that is stuck is broken off here.
		_ = c.conn.SetWriteDeadline(longAgo)
		close(c.dead)
		return
	}
	close(c.dead)
	_ = c.conn.Close() // the cause is what everyone is told
}

// longAgo as a deadline makes a connection's pending and later calls return at once.
var longAgo = time.Unix(1, 0)
