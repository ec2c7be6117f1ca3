package nbd

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// send is the sender: the one goroutine that writes to the connection. It exists, instead of a lock that callers share,
// so that a caller whose context ends never has to break off a request in the middle of its header, and so that
// requests that come together leave in one write.
func (c *Client) send() {
	batch := make([]byte, 0, cap(c.queue)*requestBytes)
	for {
		select {
		case <-c.dead:
			c.sayGoodbye()
			return
		case r := <-c.queue:
			batch = c.gather(batch[:0], r)
		}
		if len(batch) == 0 {
			continue
		}
		if _, err := c.conn.Write(batch); err != nil {
			c.end(fmt.Errorf("%w: send request: %w", ErrDisconnected, err))
			_ = c.conn.Close() // Close broke the write off: the stream ends in the middle of a request
			return
		}
	}
}

// gather appends r and all that is queued behind it, and makes them known to the receiver.
func (c *Client) gather(batch []byte, r *request) []byte {
	for {
		if c.handover.isAbandoned(r) {
			<-c.slots // nobody waits, nothing was sent
		} else {
			c.mu.Lock()
			r.handle = c.nextHandle
			c.nextHandle++ // a handle never comes back, so a reply sent twice is noticed
			c.pending[r.handle] = r
			c.mu.Unlock()
			batch = appendRequest(batch, r.command, r.handle, r.offset, r.length)
		}
		if len(batch)+requestBytes > cap(batch) {
			return batch
		}
		select {
		case r = <-c.queue:
		default:
			return batch
		}
	}
}

// sayGoodbye tells the server that the end is intended, if the socket takes it without waiting, and closes the
// connection.
func (c *Client) sayGoodbye() {
	defer func() { _ = c.conn.Close() }()
	if !errors.Is(c.cause, ErrClosed) {
		return
	}
	socket, ok := c.conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	if err := c.conn.SetWriteDeadline(time.Time{}); err != nil {
		return
	}
	goodbye := appendRequest(nil, commandDisconnect, 0, 0, 0)
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = syscall.Write(int(fd), goodbye) // a courtesy: the server copes with a connection that just ends
		return true
	})
}
