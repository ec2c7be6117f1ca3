package nbd

import (
	"context"
	"fmt"
)

// request is one request in flight. The last group of fields belongs to the receiver until done is closed, and to
// whoever waits for the request afterwards.
type request struct {
	command uint16
	handle  uint64
	offset  uint64
	length  uint32
	buf     []byte        // of a read; who may touch it is for handover to say
	wanted  []uint32      // context ids of a block status
	done    chan struct{} // closed by the receiver when the reply is complete

	abandoned bool // guarded by handover

	err         error
	covered     coverage
	refused     *ServerError
	errorChunks int
	extents     map[uint32][]wireExtent // by context id
}

// start hands a request to the sender. It waits for a free slot, but not for the server.
func (c *Client) start(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-c.dead:
		return c.cause
	default:
	}
	r.done = make(chan struct{})
	select {
	case c.slots <- struct{}{}:
		c.queue <- r
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.dead:
		return c.cause
	}
}

// wait returns when the request is complete, the context is done or the connection is dead, whichever is first. In
// each case the receiver no longer touches the request's buffer.
func (c *Client) wait(ctx context.Context, r *request) error {
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		c.handover.abandon(r)
		return ctx.Err()
	case <-c.dead:
	}
	select {
	case <-r.done: // the reply was complete before the connection died
		return r.err
	default:
	}
	// From here on a reply that completes is one whose payload may have been thrown away: it counts no more.
	c.handover.abandon(r)
	return c.cause
}

// lookup returns the request a reply belongs to.
func (c *Client) lookup(handle uint64) (*request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.pending[handle]
	if !ok {
		return nil, violation("reply to handle %d, which is not in flight", handle)
	}
	return r, nil
}

// complete hands the result to whoever waits and frees the request's slot.
func (c *Client) complete(r *request, err error) {
	c.mu.Lock()
	delete(c.pending, r.handle)
	c.mu.Unlock()
	r.err = err
	close(r.done)
	<-c.slots
}

// checkRange refuses a range that the protocol does not let a client ask for. The end of the export need not be
// aligned.
func (c *Client) checkRange(offset, length uint64) error {
	size, block := c.export.size, uint64(c.export.minBlock)
	if length > size || offset > size-length {
		return fmt.Errorf("%w: %d bytes at %d of an export of %d", ErrInvalidRange, length, offset, size)
	}
	if offset%block != 0 || (length%block != 0 && offset+length != size) {
		return fmt.Errorf("%w: %d bytes at %d, the minimum block is %d", ErrInvalidRange, length, offset, block)
	}
	return nil
}
