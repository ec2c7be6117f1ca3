package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// receiver decodes replies. Every method returns an error only when the connection cannot go on.
type receiver struct {
	client *Client
	// in holds headers. A payload that is longer than its buffer is read past it, directly to where it belongs.
	in *bufio.Reader
}

// receive is the goroutine that reads from the connection.
func (c *Client) receive() {
	v := receiver{client: c, in: bufio.NewReaderSize(c.conn, receiveBufferBytes)}
	for {
		if err := v.message(); err != nil {
			c.end(err)
			return
		}
	}
}

// message takes one simple reply or one chunk of a structured reply.
func (v *receiver) message() error {
	magic, err := v.take(4)
	if err != nil {
		return err
	}
	switch binary.BigEndian.Uint32(magic) {
	case magicSimpleReply:
		return v.simpleReply()
	case magicStructuredReply:
		return v.structuredReply()
	}
	return violation("reply starts with %#x", magic)
}

func (v *receiver) simpleReply() error {
	header, err := v.take(simpleReplyRestBytes)
	if err != nil {
		return err
	}
	errno := binary.BigEndian.Uint32(header)
	r, err := v.client.lookup(binary.BigEndian.Uint64(header[4:]))
	if err != nil {
		return err
	}
	if v.client.export.structured && r.command == commandRead {
		return violation("simple reply to a read after structured replies were agreed on")
	}
	if errno != 0 {
		return v.done(r, &ServerError{Errno: errno})
	}
	if r.command != commandRead {
		return violation("simple reply without an error to command %d", r.command)
	}
	if err := v.fill(r, r.buf); err != nil {
		return err
	}
	return v.done(r, nil)
}

// chunk is the header of one chunk of a structured reply.
type chunk struct {
	final  bool
	kind   uint16
	length uint32
}

func (v *receiver) structuredReply() error {
	header, err := v.take(structuredReplyRestBytes)
	if err != nil {
		return err
	}
	if !v.client.export.structured {
		return violation("structured reply that was not agreed on")
	}
	ch := chunk{
		final:  binary.BigEndian.Uint16(header)&replyFlagDone != 0,
		kind:   binary.BigEndian.Uint16(header[2:]),
		length: binary.BigEndian.Uint32(header[12:]),
	}
	r, err := v.client.lookup(binary.BigEndian.Uint64(header[4:]))
	if err != nil {
		return err
	}
	if err := v.chunkBody(r, ch); err != nil {
		return err
	}
	if !ch.final {
		return nil
	}
	if r.refused != nil {
		return v.done(r, r.refused)
	}
	if err := v.client.checkComplete(r); err != nil {
		return err
	}
	return v.done(r, nil)
}

func (v *receiver) chunkBody(r *request, ch chunk) error {
	switch {
	case ch.kind&chunkErrorBit != 0:
		return v.errorChunk(r, ch)
	case ch.kind == chunkNone:
		if ch.length != 0 || !ch.final {
			return violation("empty chunk with %d bytes or not at the end", ch.length)
		}
		return nil
	case ch.kind == chunkOffsetData && r.command == commandRead:
		return v.dataChunk(r, ch)
	case ch.kind == chunkOffsetHole && r.command == commandRead:
		return v.holeChunk(r, ch)
	case ch.kind == chunkBlockStatus && r.command == commandBlockStatus:
		return v.statusChunk(r, ch)
	}
	return violation("chunk of type %d in the reply to command %d", ch.kind, r.command)
}

// checkComplete tells whether a reply that says it succeeded has everything that was asked for.
func (c *Client) checkComplete(r *request) error {
	if r.command == commandRead {
		if !r.covered.complete(r.length) {
			return violation("read of %d bytes at %d ended with parts missing", r.length, r.offset)
		}
		return nil
	}
	for _, id := range r.wanted {
		if len(r.extents[id]) == 0 {
			return violation("block status ended without metadata context %d", id)
		}
	}
	return nil
}

// done completes r. It always returns nil, for the caller to return.
func (v *receiver) done(r *request, err error) error {
	v.client.complete(r, err)
	return nil
}

// take returns the next n bytes, n being less than the buffer. They are valid until the next read.
func (v *receiver) take(n int) ([]byte, error) {
	b, err := v.in.Peek(n)
	if err != nil {
		return nil, disconnected(err)
	}
	if _, err := v.in.Discard(n); err != nil {
		return nil, disconnected(err)
	}
	return b, nil
}

// fill reads payload into dst, which is part of r's buffer, or past it when the caller has taken the buffer back.
func (v *receiver) fill(r *request, dst []byte) error {
	h := &v.client.handover
	if !h.begin(r) {
		return v.skip(len(dst))
	}
	n, err := io.ReadFull(v.in, dst)
	abandoned := h.finish(r)
	if err == nil {
		return nil
	}
	if abandoned && errors.Is(err, os.ErrDeadlineExceeded) {
		return v.skip(len(dst) - n)
	}
	return disconnected(err)
}

// skip throws away n bytes.
func (v *receiver) skip(n int) error {
	if _, err := v.in.Discard(n); err != nil {
		return disconnected(err)
	}
	return nil
}

func disconnected(err error) error {
	return fmt.Errorf("%w: receive reply: %w", ErrDisconnected, err)
}
