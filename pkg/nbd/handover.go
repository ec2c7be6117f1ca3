package nbd

import (
	"net"
	"sync"
	"time"
)

// handover decides who may touch the buffer of a read: the receiver, while it fills it, or the caller that owns it.
//
// A caller whose context ends wants its buffer back at once, and the server may just be in the middle of sending into
// it, or may have stopped there for good. So the receiver announces each filling and its end. An abandoned request that
// is not being filled never will be: its payload is read and thrown away. One that is being filled is interrupted by a
// read deadline in the past, which brings back even a receiver that is blocked in the socket; the receiver gives the
// buffer up, clears the deadline and throws away the rest of the payload. The caller waits for one copy out of the
// kernel at most, and the connection and every other request on it go on undisturbed.
type handover struct {
	conn net.Conn

	mu      sync.Mutex
	filling *request
	// released is closed when the filling that was interrupted is over.
	released chan struct{}
}

// begin claims the buffer of r for the receiver. It returns false when the caller has taken it back.
func (h *handover) begin(r *request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.abandoned {
		return false
	}
	h.filling = r
	return true
}

// finish gives the buffer up. It returns true when the caller has abandoned the request meanwhile; then a read that
// failed for the deadline is no failure of the connection.
func (h *handover) finish(r *request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.filling = nil
	if !r.abandoned {
		return false
	}
	_ = h.conn.SetReadDeadline(time.Time{}) // fails only on a closed connection, which the next read reports
	close(h.released)
	return true
}

// abandon takes the buffer of r away from the receiver and returns when that is done.
func (h *handover) abandon(r *request) {
	h.mu.Lock()
	r.abandoned = true
	if h.filling != r {
		h.mu.Unlock()
		return
	}
	released := make(chan struct{})
	h.released = released
	_ = h.conn.SetReadDeadline(longAgo) // fails only on a closed connection, whose reads return by themselves
	h.mu.Unlock()
	<-released
}

// isAbandoned tells whether nobody waits for r any more.
func (h *handover) isAbandoned(r *request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return r.abandoned
}
