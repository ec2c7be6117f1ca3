package transport_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/umbra-dr/umbra/pkg/transport"
)

const (
	preface   = "UMBRA replication data\r\n"
	ticketKey = "umbra-data-ticket-bin"
)

// network dials for a test, and keeps what it has dialled.
type network struct {
	mu  sync.Mutex
	all []*counted
}

// counted knows how much was written to it.
type counted struct {
	net.Conn
	mu      sync.Mutex
	written int
}

func (c *counted) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.written += len(b)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (n *network) dial(ctx context.Context, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &counted{Conn: conn}
	n.all = append(n.all, c)
	return c, nil
}

// written is the bytes on each connection, in the order in which they were made.
func (n *network) written() []int {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []int
	for _, c := range n.all {
		c.mu.Lock()
		all = append(all, c.written)
		c.mu.Unlock()
	}
	return all
}

// over is serve with a network between the two.
func over(t *testing.T, n *network, w way, h transport.Handler) *transport.Conn {
	t.Helper()
	address, dialer := listen(t, w, h)
	dialer.DialContext = n.dial
	conn, err := dialer.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// drain receives until the main side has closed.
func drain(s *transport.ShadowStream) error { return each(s, func(transport.Received) {}) }

// each receives until the main side has closed, and shows take what came.
func each(s *transport.ShadowStream, take func(transport.Received)) error {
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		take(r)
		if r.Clusters != nil {
			r.Clusters.Release()
		}
	}
}

func TestDiskDataHasAConnectionOfItsOwnAndMessagesNeedNone(t *testing.T) {
	overEachWay(t, func(t *testing.T, w way) {
		n := &network{}
		s := openStream(t, over(t, n, w, drain))
		if err := s.SendControl(control(1)); err != nil {
			t.Fatal(err)
		}
		if err := s.SendZeros(0, 0, 8); err != nil {
			t.Fatal(err)
		}
		if got := n.written(); len(got) != 1 {
			t.Fatalf("%d connections before there was data", len(got))
		}
		for i := range uint64(16) {
			if _, err := sendClusters(s, 0, i, 1, i); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		const data = 16 * transport.ClusterBytes
		got, carries := n.written(), 1
		if w.oneConnection {
			carries = 0
		}
		if len(got) != carries+1 || got[carries] < data || carries == 1 && got[0] > data/100 {
			t.Errorf("the connections carried %d bytes", got)
		}
	})
}

func TestAStreamEndsWithItsDataConnectionAndSaysWhy(t *testing.T) {
	n := &network{}
	ended := make(chan error, 1)
	s := openStream(t, over(t, n, way{}, func(s *transport.ShadowStream) error {
		err := drain(s)
		ended <- err
		return err
	}))
	if _, err := sendClusters(s, 0, 0, 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := n.all[1].Close(); err != nil { // in order for TCP, between two frames
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the shadow side takes it for %v", err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unknown {
		t.Errorf("the main side takes it for %v", err)
	}
	if _, err := sendClusters(s, 0, 1, 1, 1); !errors.Is(err, io.EOF) {
		t.Errorf("sending goes on: %v", err)
	}
}

func TestADataConnectionThatCannotBeMadeEndsTheStreamAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener, dialled := bufconn.Listen(1<<16), 0
		srv := transport.NewServer(insecure.NewCredentials(), func(s *transport.ShadowStream) error {
			<-s.Context().Done() // it has nothing to say of it
			return s.Context().Err()
		}, grpc.WaitForHandlers(true))
		served := make(chan error, 1)
		go func() { served <- srv.Serve(listener) }()
		conn, err := transport.Dialer{
			Credentials: insecure.NewCredentials(),
			DialContext: func(ctx context.Context, _ string) (net.Conn, error) {
				if dialled++; dialled > 1 {
					return nil, errors.New("refused by the test")
				}
				return listener.DialContext(ctx)
			},
		}.Dial("shadow:1")
		if err != nil {
			t.Fatal(err)
		}
		s, err := transport.Open(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sendClusters(s, 0, 0, 1, 1); !errors.Is(err, io.EOF) {
			t.Errorf("sending: %v", err)
		}
		if _, err := s.Recv(); err == nil || err.Error() != "opening the data connection to shadow:1: refused by the test" {
			t.Errorf("receiving: %v", err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		srv.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectionWithoutATicketIsClosed(t *testing.T) {
	for _, w := range []way{{}, {tls: true}} {
		address, dialer := listen(t, w, drain)
		for _, ticket := range []string{"0123456789abcdef", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
			conn := secured(t, address, dialer)
			if _, err := io.WriteString(conn, preface+ticket); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); len(got) > 0 {
				t.Errorf("it was answered with %q, %v", got, err)
			}
			_ = conn.Close()
		}
	}
}

func TestATicketIsGoodForOneConnection(t *testing.T) {
	address, dialer := listen(t, way{}, drain)
	conn, err := dialer.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, ticket := ticketed(ctx, t, conn)
	if _, other := ticketed(ctx, t, conn); len(ticket) != 16 || other == ticket {
		t.Fatalf("tickets %x and %x", ticket, other)
	}
	first, second := secured(t, address, dialer), secured(t, address, dialer)
	defer func() { _, _ = first.Close(), second.Close() }()
	for _, c := range []net.Conn{first, second} {
		if _, err := io.WriteString(c, preface+ticket); err != nil {
			t.Fatal(err)
		}
	}
	// Either may have come first. The other is closed at once.
	closed := make(chan net.Conn, 2)
	for _, c := range []net.Conn{first, second} {
		go func() {
			_, _ = io.ReadAll(c)
			closed <- c
		}()
	}
	<-closed
	select {
	case <-closed:
		t.Error("both are closed while the stream goes on")
	case <-stream.Context().Done():
		t.Error("the stream is over")
	default:
	}
	cancel() // the stream ends without having used it
	<-closed
}

// ticketed is a stream, and the ticket that was given for it.
func ticketed(ctx context.Context, t *testing.T, conn *transport.Conn) (grpc.ClientStream, string) {
	t.Helper()
	stream, err := conn.GRPC().NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, transport.FullMethod,
		grpc.CallContentSubtype("umbra-frames"))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Header()
	if err != nil || len(answer.Get(ticketKey)) != 1 {
		t.Fatal(answer, err)
	}
	return stream, answer.Get(ticketKey)[0]
}

// secured is a connection as a main host makes it, before it has said what it is for.
func secured(t *testing.T, address string, dialer transport.Dialer) net.Conn {
	t.Helper()
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	conn, _, err := dialer.Credentials.ClientHandshake(t.Context(), address, raw)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// forgetful is a server stream of a shadow host that knows no data connection.
type forgetful struct{ grpc.ServerStream }

func (f forgetful) SendHeader(m metadata.MD) error {
	m = m.Copy()
	m.Delete(ticketKey)
	return f.ServerStream.SendHeader(m)
}

func TestAShadowHostThatGivesNoTicketGetsDataByGRPC(t *testing.T) {
	n := &network{}
	address, dialer := listen(t, way{}, drain, grpc.StreamInterceptor(
		func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return handler(server, forgetful{stream})
		}))
	dialer.DialContext = n.dial
	conn, err := dialer.Dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	s := openStream(t, conn)
	if _, err := sendClusters(s, 0, 0, 4, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if got := n.written(); len(got) != 1 {
		t.Errorf("%d connections were made", len(got))
	}
}
