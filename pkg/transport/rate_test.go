package transport_test

import (
	"errors"
	"io"
	"testing"

	"github.com/umbra-dr/umbra/pkg/transport"
)

// BenchmarkStream measures the whole way: checksums made, sent over loopback TCP, verified, handed on.
func BenchmarkStream(b *testing.B) {
	for name, w := range ways {
		b.Run(name, func(b *testing.B) { benchmarkStream(b, w) })
	}
}

func benchmarkStream(b *testing.B, w way) {
	conn := serve(b, w, drain)
	s := openStream(b, conn)
	b.SetBytes(transport.FrameClustersMax * transport.ClusterBytes)
	b.ReportAllocs()
	first := uint64(0)
	sums := make([]transport.Sum, transport.FrameClustersMax)
	for b.Loop() {
		buffer := s.NewBuffer(transport.FrameClustersMax)
		for i := range sums {
			sums[i] = transport.SumOf(buffer.Data()[i*transport.ClusterBytes:][:transport.ClusterBytes])
		}
		if err := s.SendClusters(0, first, sums, buffer); err != nil {
			b.Fatal(err)
		}
		first += transport.FrameClustersMax
	}
	if err := s.CloseSend(); err != nil {
		b.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		b.Fatal(err)
	}
}
