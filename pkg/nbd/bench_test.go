package nbd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkRead reads sequentially over a unix socket, 256 KiB at a time, 16 in flight. An operation is one request.
func BenchmarkRead(b *testing.B) {
	const size = 512 << 20
	b.Run("nbdkit", func(b *testing.B) {
		readSequentially(b, startNbdkit(b, "memory", "512M"), size)
	})
	b.Run("qemu-nbd", func(b *testing.B) {
		image := filepath.Join(shortTempDir(b), "disk")
		writeDurably(b, image, content(0, size))
		readSequentially(b, startQemuNbd(b, "-r", "-f", "raw", image), size)
	})
}

// writeDurably leaves no dirty pages behind, whose writing would slow the server down.
func writeDurably(b *testing.B, path string, data []byte) {
	b.Helper()
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		b.Fatal(err)
	}
}

func readSequentially(b *testing.B, socket string, size uint64) {
	const (
		request  = 256 << 10
		inFlight = 16
	)
	c := dialSocket(b, socket, Config{InFlightMax: inFlight})
	b.SetBytes(request)
	b.ReportAllocs()
	b.ResetTimer()
	var next atomic.Uint64
	var readers sync.WaitGroup
	for range inFlight {
		readers.Go(func() {
			p := make([]byte, request)
			for {
				i := next.Add(1) - 1
				if i >= uint64(b.N) {
					return
				}
				if err := c.ReadAt(context.Background(), p, i*request%size); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
}
