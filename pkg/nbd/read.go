package nbd

import (
	"context"
	"fmt"
)

// ReadAt reads exactly len(p) bytes at byte offset off into p. Calls from many goroutines are in flight together, up to
// Config.InFlightMax requests, and so are the parts of a read that is longer than the server takes at once.
//
// Errors: ErrInvalidRange before anything is sent; a *ServerError, which leaves the Client usable; the context's error,
// at once and likewise; ErrProtocol, ErrDisconnected or ErrClosed when the connection is dead. After an error the
// content of p is undefined, but p is no longer written to.
func (c *Client) ReadAt(ctx context.Context, p []byte, off uint64) error {
	if err := c.checkRange(off, uint64(len(p))); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	if err := c.readParts(ctx, p, off); err != nil {
		return fmt.Errorf("nbd: read %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

func (c *Client) readParts(ctx context.Context, p []byte, off uint64) error {
	partMax := c.readPartMax()
	if len(p) <= partMax {
		r := readRequest(p, off)
		if err := c.start(ctx, r); err != nil {
			return err
		}
		return c.wait(ctx, r)
	}
	var (
		started []*request
		err     error
	)
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), partMax)]
		r := readRequest(part, off)
		if err = c.start(ctx, r); err == nil {
			started = append(started, r)
		}
		p, off = p[len(part):], off+uint64(len(part))
	}
	for _, r := range started {
		if err != nil {
			c.handover.abandon(r)
			continue
		}
		err = c.wait(ctx, r)
	}
	return err
}

func readRequest(p []byte, off uint64) *request {
	return &request{command: commandRead, offset: off, length: uint32(len(p)), buf: p}
}

// readPartMax is the longest single read, a multiple of the minimum block size.
func (c *Client) readPartMax() int {
	most := min(c.export.maxBlock, readBytesMax)
	return int(most - most%c.export.minBlock)
}
