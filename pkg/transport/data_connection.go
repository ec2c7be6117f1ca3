package transport

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

const (
	// preface opens a data connection. HTTP/2's own has the same length, so that a server can tell the two after 24 bytes.
	preface = "UMBRA replication data\r\n"
	// ticketKey is the header of the stream's answer in which the shadow host says by which ticket it takes data.
	ticketKey = "umbra-data-ticket-bin"
	// openTimeout is how long a data connection may take, on either side.
	openTimeout = 15 * time.Second
	// deadAfter is how long data may stay unacknowledged. It is longer than a shadow host's disk should ever hold it up,
	// since a receiver that does not read counts too.
	deadAfter = 2 * time.Minute
)

// ticket names the stream that a data connection belongs to. Only the main host of that stream has heard it.
type ticket [16]byte

// tickets are those of the streams that go on. Safe for concurrent use.
type tickets struct {
	mu      sync.Mutex
	waiting map[ticket]chan net.Conn
}

func newTickets() *tickets { return &tickets{waiting: map[ticket]chan net.Conn{}} }

// give makes a ticket, and the channel on which its connection arrives.
func (t *tickets) give() (ticket, chan net.Conn) {
	var k ticket
	_, _ = rand.Read(k[:]) // never fails
	arrived := make(chan net.Conn, 1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.waiting[k] = arrived
	return k, arrived
}

// redeem hands a connection over to the stream of its ticket. A ticket serves once; a connection without one is closed.
func (t *tickets) redeem(k ticket, conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	arrived, ok := t.waiting[k]
	if !ok {
		_ = conn.Close()
		return
	}
	delete(t.waiting, k)
	arrived <- conn
}

// withdraw makes the ticket count no more, and closes the connection that came by it if nobody has taken that.
func (t *tickets) withdraw(k ticket, arrived <-chan net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.waiting, k)
	select {
	case conn := <-arrived:
		_ = conn.Close()
	default:
	}
}

// telling are credentials that, once a connection is secure, tell data connections from gRPC's.
type telling struct {
	credentials.TransportCredentials
	given *tickets
}

// ServerHandshake returns gRPC's connections and hands over the others. gRPC has set a deadline on the connection.
func (c telling) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // gRPC compares it
	}
	begin := make([]byte, len(preface))
	if _, err := io.ReadFull(conn, begin); err != nil {
		_ = conn.Close()
		return nil, nil, err //nolint:wrapcheck // gRPC takes io.EOF for a probe
	}
	if string(begin) != preface {
		return &begun{Conn: conn, begin: begin}, auth, nil
	}
	var k ticket
	if _, err := io.ReadFull(conn, k[:]); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("reading a data connection's ticket: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("taking in a data connection: %w", err)
	}
	c.given.redeem(k, conn)
	return nil, nil, credentials.ErrConnDispatched
}

// Clone is for gRPC.
func (c telling) Clone() credentials.TransportCredentials {
	return telling{c.TransportCredentials.Clone(), c.given}
}

// begun is a connection whose first bytes have been read.
type begun struct {
	net.Conn
	begin []byte
}

// Read gives those first.
func (c *begun) Read(b []byte) (int, error) {
	if len(c.begin) == 0 {
		return c.Conn.Read(b) //nolint:wrapcheck // it is the connection's
	}
	n := copy(b, c.begin)
	c.begin = c.begin[n:]
	return n, nil
}

// openData makes the data connection of a stream that goes on while ctx does.
func (c *Conn) openData(ctx context.Context, ticket string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	raw, err := c.dialer.dial(ctx, c.address)
	if err != nil {
		return nil, err
	}
	if err := giveUpAfter(raw, deadAfter); err != nil {
		_ = raw.Close()
		return nil, err
	}
	below := &belowTLS{Conn: raw}
	conn, _, err := c.dialer.Credentials.ClientHandshake(ctx, c.address, below)
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	conn = newBatched(conn, below)
	if _, err := io.WriteString(conn, preface+ticket); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("showing the ticket: %w", err)
	}
	return conn, nil
}

// giveUpAfter bounds how long what was written may stay unacknowledged (TCP_USER_TIMEOUT, tcp(7)).
func giveUpAfter(conn net.Conn, d time.Duration) error {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return fmt.Errorf("setting the connection's time-out: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
	if err == nil {
		err = set
	}
	if err != nil {
		return fmt.Errorf("setting the connection's time-out: %w", err)
	}
	return nil
}
