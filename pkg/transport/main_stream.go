package transport

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// MainStream is the main host's end of a stream. One goroutine may send while another receives.
type MainStream struct {
	grpc  grpc.ClientStream
	pools sendPools
}

// Open begins a stream. It ends when ctx ends, or when Recv returns an error; one of the two must happen, or its
// goroutines stay.
func Open(ctx context.Context, conn grpc.ClientConnInterface) (*MainStream, error) {
	desc := &grpc.StreamDesc{StreamName: methodName, ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, FullMethod,
		grpc.ForceCodecV2(passThrough{}), grpc.CallContentSubtype(codecName),
		grpc.MaxCallRecvMsgSize(frameBytesMax), grpc.MaxCallSendMsgSize(frameBytesMax))
	if err != nil {
		return nil, fmt.Errorf("opening a replication stream: %w", err)
	}
	return &MainStream{grpc: stream}, nil
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
// FrameClusters is a good count. Safe for concurrent use.
func (s *MainStream) NewBuffer(clusters int) *Buffer { return s.pools.get(clusters) }

// SendClusters sends the first len(sums) clusters of the buffer, as the clusters of the disk from first on. A last cluster that
// the disk fills in part must be padded with zeros, and its checksum be that of the padded cluster. The buffer is the
// stream's afterwards, whatever is returned. It waits while the way to the shadow is full. Errors: ErrTooLarge or ErrFrame
// for what cannot be a frame; io.EOF when the stream has ended, and then Recv has the reason.
func (s *MainStream) SendClusters(disk uint32, first uint64, sums []Sum, b *Buffer) error {
	f, err := b.seal(disk, first, sums)
	if err != nil {
		b.Free()
		return err
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

func (s *MainStream) send(f *rawFrame) error {
	err := s.grpc.SendMsg(f)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("sending a replication frame: %w", err)
}

// Recv returns the shadow host's next message. Errors: io.EOF when the shadow host ended the stream in order, ErrFrame, or a
// gRPC status; all are final.
func (s *MainStream) Recv() (*umbrav1.ShadowMessage, error) {
	var f rawFrame
	if err := s.grpc.RecvMsg(&f); err != nil {
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
	if err := s.grpc.CloseSend(); err != nil {
		return fmt.Errorf("closing a replication stream: %w", err)
	}
	return nil
}
