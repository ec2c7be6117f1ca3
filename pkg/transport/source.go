package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// source is where the main side's frames come from.
type source interface {
	// next waits for a frame and returns its header, checked, and what follows it, to be read and then closed before the next
	// one. Errors: io.EOF when the main side closed, ErrFrame, or a gRPC status.
	next() (header, io.ReadCloser, error)
}

// fromGRPC takes frames that come as messages of the stream.
type fromGRPC struct{ stream grpc.ServerStream }

func (g fromGRPC) next() (header, io.ReadCloser, error) {
	var f rawFrame
	if err := g.stream.RecvMsg(&f); err != nil {
		return header{}, nil, err //nolint:wrapcheck // a status, or io.EOF
	}
	h, r, err := open(&f)
	if err != nil {
		_ = r.Close()
		return header{}, nil, err
	}
	return h, r, nil
}

// fromConnection takes frames off the stream's data connection.
type fromConnection struct {
	stream context.Context //nolint:containedctx // says why the connection was closed
	buffer *bufio.Reader
}

// headBytes of a frame at most pass through a buffer: header and checksums, and what of the data came with them.
const headBytes = 4 << 10

func newFromConnection(stream context.Context, conn net.Conn) *fromConnection {
	return &fromConnection{stream: stream, buffer: bufio.NewReaderSize(conn, headBytes)}
}

func (c *fromConnection) next() (header, io.ReadCloser, error) {
	var b [headerBytes]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return header{}, nil, err
	}
	h, err := parseHeader(&b)
	if err != nil {
		return header{}, nil, err
	}
	return h, io.NopCloser(c), nil
}

// Read never returns io.EOF: a data connection is left by a frame that says so.
func (c *fromConnection) Read(b []byte) (int, error) {
	n, err := c.buffer.Read(b)
	switch {
	case err == nil:
		return n, nil
	case c.stream.Err() != nil:
		return n, status.FromContextError(c.stream.Err()).Err()
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("receiving from the data connection: %w", err)
}
