package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// readyMax is how many Received wait, verified, for the one who stores them. With what is being gathered and what is being stored
// it bounds a stream's memory to readyMax+2 times 8 MiB, beside gRPC's window.
const readyMax = 1

var errHandlerEnded = errors.New("the handler of the stream has returned")

// ShadowStream is the shadow host's end of a stream. One goroutine may send while another receives. It is over when
// the handler returns.
type ShadowStream struct {
	grpc    grpc.ServerStream
	arrived <-chan net.Conn // the data connection, if the main side opens one
	pools   gatherPools
	ready   chan Received
	done    chan struct{}
	err     error // why ready was closed; written before
}

// Recv returns what the main side sent next. Data is held back until 1 to 8 MiB of consecutive clusters are there, or anything else
// was sent, or the main side closed: a control message is never behind data that was sent before it. Errors: io.EOF when
// the main side closed, ErrFrame, ErrChecksum, or a gRPC status; all are final.
func (s *ShadowStream) Recv() (Received, error) { return s.RecvContext(context.Background()) }

// RecvContext is Recv that ends with the context's cause when ctx ends. The stream goes on.
func (s *ShadowStream) RecvContext(ctx context.Context) (Received, error) {
	if ctx.Err() != nil {
		return Received{}, context.Cause(ctx)
	}
	select {
	case r, ok := <-s.ready:
		if !ok {
			return Received{}, s.err
		}
		return r, nil
	case <-ctx.Done():
		return Received{}, context.Cause(ctx)
	}
}

// Send sends a message to the main side. Errors: ErrTooLarge, or a gRPC status, which is final.
func (s *ShadowStream) Send(m *umbrav1.ShadowMessage) error {
	f, err := controlFrame(m)
	if err != nil {
		return err
	}
	if err := s.grpc.SendMsg(f); err != nil {
		return fmt.Errorf("sending a replication frame: %w", err)
	}
	return nil
}

// Context ends when the stream does. It carries what gRPC knows of the caller.
func (s *ShadowStream) Context() context.Context { return s.grpc.Context() }

// verify receives, verifies and gathers, beside the goroutine that stores. It ends when the stream does.
func (s *ShadowStream) verify() {
	defer close(s.ready)
	g := gather{pools: &s.pools}
	err := s.follow(&g, fromGRPC{s.grpc})
	if errors.Is(err, io.EOF) {
		if err = s.flush(&g); err == nil {
			err = io.EOF
		}
	}
	s.err = err
}

// follow takes the frames that come by gRPC and, from where one says so, those of the data connection.
func (s *ShadowStream) follow(g *gather, byGRPC source) error {
	if err := s.frames(g, byGRPC); err != nil {
		return err
	}
	conn, err := s.dataConnection()
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(s.grpc.Context(), func() { _ = conn.Close() })()
	if err := s.frames(g, newFromConnection(s.grpc.Context(), conn)); err != nil {
		return err
	}
	if err := s.frames(g, byGRPC); err != nil {
		return err
	}
	return fmt.Errorf("%w: a second switch to the data connection", ErrFrame)
}

// frames takes frames from a source until one says that the next comes from the other.
func (s *ShadowStream) frames(g *gather, from source) error {
	for {
		h, r, err := from.next()
		if err != nil {
			return err
		}
		if h.kind != frameSwitch {
			err = s.frame(g, h, r)
		}
		_ = r.Close()
		if err != nil || h.kind == frameSwitch {
			return err
		}
	}
}

// dataConnection waits for it: it has been opened when the main side says that it uses it, but may have to be taken in yet.
func (s *ShadowStream) dataConnection() (net.Conn, error) {
	stream := s.grpc.Context()
	soon, cancel := context.WithTimeout(stream, openTimeout)
	defer cancel()
	select {
	case conn := <-s.arrived:
		return conn, nil
	case <-soon.Done():
		if stream.Err() != nil {
			return nil, status.FromContextError(stream.Err()).Err()
		}
		return nil, status.Error(codes.Unavailable, "the stream's data connection has not arrived")
	}
}

// frame takes one frame and hands on what is then complete.
func (s *ShadowStream) frame(g *gather, h header, r io.Reader) error {
	if h.kind == frameClusters && g.takes(h) {
		return s.data(g, h, r)
	}
	if err := s.flush(g); err != nil {
		return err
	}
	switch h.kind {
	case frameClusters:
		return s.data(g, h, r)
	case frameZeros:
		return s.deliver(Received{Zeros: &Zeros{Disk: h.disk, First: h.first, Count: h.count}})
	default:
		m := &umbrav1.MainMessage{}
		if err := readControl(h, r, m); err != nil {
			return err
		}
		return s.deliver(Received{Control: m})
	}
}

func (s *ShadowStream) data(g *gather, h header, r io.Reader) error {
	if err := g.add(h, r); err != nil {
		return err
	}
	if g.full() {
		return s.flush(g)
	}
	return nil
}

func (s *ShadowStream) flush(g *gather) error {
	if c := g.take(); c != nil {
		return s.deliver(Received{Clusters: c})
	}
	return nil
}

func (s *ShadowStream) deliver(r Received) error {
	select {
	case s.ready <- r:
		return nil
	case <-s.done:
		return errHandlerEnded
	}
}
