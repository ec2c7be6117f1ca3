package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// MainStream is the main host's end of a stream. One goroutine may send while another receives.
type MainStream struct {
	conn   *Conn
	grpc   grpc.ClientStream
	ctx    context.Context //nolint:containedctx // the stream's
	cancel context.CancelCauseFunc
	pools  sendPools

	// The sender's.
	asked bool     // whether the shadow host takes a data connection
	data  net.Conn // nil while frames go by gRPC
}

// sayWhyTimeout is how long the shadow host may take to say why it has closed the data connection.
const sayWhyTimeout = 5 * time.Second

// errData is the cause of a stream that ended with its data connection.
type errData struct{ error }

// Open begins a stream. It ends when ctx ends, or when Recv returns an error; one of the two must happen, or its
// goroutines stay.
func Open(ctx context.Context, conn *Conn) (*MainStream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	desc := &grpc.StreamDesc{StreamName: methodName, ServerStreams: true, ClientStreams: true}
	stream, err := conn.grpc.NewStream(ctx, desc, FullMethod,
		grpc.ForceCodecV2(passThrough{}), grpc.CallContentSubtype(codecName),
		grpc.MaxCallRecvMsgSize(frameBytesMax), grpc.MaxCallSendMsgSize(frameBytesMax))
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("opening a replication stream: %w", err)
	}
	return &MainStream{conn: conn, grpc: stream, ctx: ctx, cancel: cancel}, nil
}

// SendControl sends a control message. Errors as for SendClusters.
func (s *MainStream) SendControl(m *umbrav1.MainMessage) error {
	f, err := controlFrame(m)
	if err != nil {
		return err
	}
	return s.send(f)
}

// NewBuffer returns a pooled buffer for so many clusters, from 1 to FrameClustersMax; other counts get the nearest.
// Safe for concurrent use.
func (s *MainStream) NewBuffer(clusters int) *Buffer { return s.pools.get(clusters) }

// SendClusters sends the first len(sums) clusters of the buffer, as the clusters of the disk from first on. A last cluster that
// the disk fills in part must be padded with zeros, and its checksum be that of the padded cluster. The buffer is the
// stream's afterwards, whatever is returned. It waits while the way to the shadow is full. The first call opens the data
// connection, if the shadow host takes one. Errors: ErrTooLarge or ErrFrame for what cannot be a frame; io.EOF when the stream
// has ended, and then Recv has the reason.
func (s *MainStream) SendClusters(disk uint32, first uint64, sums []Sum, b *Buffer) error {
	f, err := b.seal(disk, first, sums)
	if err != nil {
		b.Free()
		return err
	}
	if !s.asked {
		s.asked = true
		if err := s.switchToData(); err != nil {
			f.data.Free()
			return err
		}
	}
	return s.send(f)
}

// SendZeros says that count clusters of the disk, from first on, are zero. Errors as for SendClusters.
func (s *MainStream) SendZeros(disk uint32, first, count uint64) error {
	f, err := zerosFrame(disk, first, count)
	if err != nil {
		return err
	}
	return s.send(f)
}

// switchToData opens the data connection of a shadow host that has given a ticket for it, and has what is sent from now on go
// there.
func (s *MainStream) switchToData() error {
	if s.conn.dialer.OneConnection {
		return nil
	}
	header, err := s.grpc.Header()
	if err != nil {
		return io.EOF // Recv has the reason
	}
	tickets := header.Get(ticketKey)
	if len(tickets) == 0 {
		return nil
	}
	stream := s.grpc.Context()
	conn, err := s.conn.openData(stream, tickets[0])
	if err != nil {
		return s.broken(fmt.Errorf("opening the data connection to %s: %w", s.conn.address, err))
	}
	context.AfterFunc(stream, func() { _ = conn.Close() })
	if err := s.send(switchFrame()); err != nil {
		return err
	}
	s.data = conn
	return nil
}

// broken ends a stream whose data connection is of no use. What the shadow host says of it, in time, goes first.
func (s *MainStream) broken(err error) error {
	late, cancel := context.WithTimeoutCause(s.ctx, sayWhyTimeout, errData{err})
	context.AfterFunc(late, func() {
		s.cancel(context.Cause(late))
		cancel()
	})
	return io.EOF
}

func (s *MainStream) send(f *rawFrame) error {
	if s.data != nil {
		return s.write(f)
	}
	err := s.grpc.SendMsg(f)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("sending a replication frame: %w", err)
}

// write sends a frame by the data connection.
func (s *MainStream) write(f *rawFrame) error {
	defer f.data.Free()
	for _, b := range f.data {
		if _, err := s.data.Write(b.ReadOnlyData()); err != nil {
			_ = s.data.Close()
			return s.broken(fmt.Errorf("sending to %s by the data connection: %w", s.conn.address, err))
		}
	}
	return nil
}

// Recv returns the shadow host's next message. Errors: io.EOF when the shadow host ended the stream in order, ErrFrame, or a
// gRPC status; all are final.
func (s *MainStream) Recv() (*umbrav1.ShadowMessage, error) {
	var f rawFrame
	if err := s.grpc.RecvMsg(&f); err != nil {
		defer s.cancel(nil)
		var data errData
		if status.Code(err) == codes.Canceled && errors.As(context.Cause(s.ctx), &data) {
			return nil, data.error
		}
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("receiving a replication frame: %w", err)
	}
	h, r, err := open(&f)
	defer func() { _ = r.Close() }()
	if err != nil {
		return nil, err
	}
	if h.kind != frameControl {
		return nil, fmt.Errorf("%w: disk data from the shadow side", ErrFrame)
	}
	m := &umbrav1.ShadowMessage{}
	if err := readControl(h, r, m); err != nil {
		return nil, err
	}
	return m, nil
}

// CloseSend says that nothing more will be sent. It must not run beside a send.
func (s *MainStream) CloseSend() error {
	if s.data != nil {
		_ = s.write(switchFrame()) // if that fails, Recv says so
		s.data = nil
	}
	if err := s.grpc.CloseSend(); err != nil {
		return fmt.Errorf("closing a replication stream: %w", err)
	}
	return nil
}
