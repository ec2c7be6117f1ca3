package transport

import (
	"bufio"
	"net"
)

// batchBytes is how much the kernel is given at once.
const batchBytes = 128 << 10

// batched is a data connection on the main side. TLS writes a record of 16 KiB at a time, and each of them alone would be a call, a
// packet, and a receiver that is woken; so they are gathered below it. TCP_CORK is no way to have the kernel do that: a sync took half as
// long again with it.
type batched struct {
	net.Conn
	below *belowTLS
}

// belowTLS is the connection below TLS.
type belowTLS struct {
	net.Conn
	out *bufio.Writer // nil during the handshake
}

func (l *belowTLS) Write(b []byte) (int, error) {
	if l.out == nil {
		return l.Conn.Write(b) //nolint:wrapcheck // it is the connection's
	}
	return l.out.Write(b) //nolint:wrapcheck // likewise
}

// newBatched takes a connection whose handshake is done.
func newBatched(conn net.Conn, below *belowTLS) *batched {
	below.out = bufio.NewWriterSize(below.Conn, batchBytes)
	return &batched{conn, below}
}

// Write returns when the kernel has all of b. It is the only writer: nothing is read from a data connection, so TLS has nothing
// to answer.
func (c *batched) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		err = c.below.out.Flush()
	}
	return n, err //nolint:wrapcheck // it is the connection's
}

// Close does without TLS's farewell, which could meet a Write: the frame of a switch has said that nothing follows, or something is
// missing.
func (c *batched) Close() error { return c.below.Conn.Close() } //nolint:wrapcheck // it is the connection's
