package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// patternAt is what nbdkit's pattern plugin holds: each aligned 8 bytes are their own offset, big endian.
func patternAt(off uint64, length int) []byte {
	b := make([]byte, length+16)
	for i := 0; i+8 <= len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], off&^7+uint64(i))
	}
	return b[off&7:][:length]
}

func TestReadsInFlightTogetherDoNotMixTheirBytes(t *testing.T) {
	c := dialSocket(t, startNbdkit(t, "pattern", "1G"), Config{InFlightMax: 16})
	var readers sync.WaitGroup
	for seed := range uint64(16) {
		readers.Go(func() {
			draw := rand.New(rand.NewPCG(seed, 1))
			for range 30 {
				off := draw.Uint64N(1<<30 - 300000)
				p := make([]byte, 1+draw.IntN(300000))
				if err := c.ReadAt(context.Background(), p, off); err != nil {
					t.Error(err)
					return
				}
				if !bytes.Equal(p, patternAt(off, len(p))) {
					t.Errorf("wrong bytes in %d at %d", len(p), off)
				}
			}
		})
	}
	readers.Wait()
}

// TestCancelledReadsNeverTouchTheirBuffers cancels about half of many reads, at any moment, while the others must still
// get their bytes. The race detector sees a buffer that is still written to.
func TestCancelledReadsNeverTouchTheirBuffers(t *testing.T) {
	c := dialSocket(t, startNbdkit(t, "pattern", "1G"), Config{InFlightMax: 8})
	var readers sync.WaitGroup
	for seed := range uint64(8) {
		readers.Go(func() {
			draw := rand.New(rand.NewPCG(seed, 2))
			p := make([]byte, 256<<10)
			for range 40 {
				off := draw.Uint64N(1<<30 - uint64(len(p)))
				ctx, cancel := context.WithCancel(context.Background())
				cancelled := make(chan struct{})
				go func() {
					defer close(cancelled)
					if draw := rand.New(rand.NewPCG(off, 3)); draw.IntN(2) == 0 {
						cancel()
					}
				}()
				err := c.ReadAt(ctx, p, off)
				<-cancelled
				cancel()
				switch {
				case err == nil && !bytes.Equal(p, patternAt(off, len(p))):
					t.Errorf("wrong bytes at %d", off)
				case err != nil && !errors.Is(err, context.Canceled):
					t.Error(err)
				}
				clear(p)
			}
		})
	}
	readers.Wait()
}

func TestAnErrorOfNbdkitLeavesTheConnectionUsable(t *testing.T) {
	inject := filepath.Join(shortTempDir(t), "inject")
	socket := startNbdkit(t, "--filter=error", "data", "data=0x55*1048576", "error-pread=EIO", "error-pread-rate=100%", "error-pread-file="+inject,
		"error-extents=ENOSPC", "error-extents-rate=100%", "error-extents-file="+inject)
	c := dialSocket(t, socket, Config{MetaContexts: []string{allocation}})
	p := make([]byte, 65536)
	for range 3 {
		if err := os.WriteFile(inject, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var refused *ServerError
		if err := c.ReadAt(context.Background(), p, 0); !errors.As(err, &refused) || refused.Errno != EIO {
			t.Errorf("got %v, want EIO", err)
		}
		err := c.BlockStatus(context.Background(), allocation, 0, 1<<20, func(Extent) error { return nil })
		if !errors.As(err, &refused) || refused.Errno != ENOSPC {
			t.Errorf("got %v, want ENOSPC", err)
		}
		if err := os.Remove(inject); err != nil {
			t.Fatal(err)
		}
		if err := c.ReadAt(context.Background(), p, 8); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{0x55}, len(p))) {
			t.Errorf("the next read failed: %v", err)
		}
	}
}

func TestCloseDoesNotWaitForASlowServer(t *testing.T) {
	c := dialSocket(t, startNbdkit(t, "--filter=delay", "memory", "1M", "rdelay=3600"), Config{})
	result := make(chan error, 1)
	go func() { result <- c.ReadAt(context.Background(), make([]byte, 4096), 0) }()
	for sent := false; !sent; runtime.Gosched() {
		c.mu.Lock()
		sent = len(c.pending) == 1
		c.mu.Unlock()
	}
	_ = c.Close()
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestHolesOfADiskLargerThanOneRequestAreOneExtent(t *testing.T) {
	c := dialSocket(t, startNbdkit(t, "data", "data=@0x20000000000 0x55*65536", "size=4T"), Config{MetaContexts: []string{allocation}})
	want := []Extent{
		{0, 2 << 40, StateHole | StateZero},
		{2 << 40, 65536, 0},
		{2<<40 + 65536, 2<<40 - 65536, StateHole | StateZero},
	}
	got := extentsOf(t, c, allocation, 0, c.Size())
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	p := bytes.Repeat([]byte{0xAA}, 131072)
	if err := c.ReadAt(context.Background(), p, 2<<40-32768); err != nil {
		t.Fatal(err)
	}
	filled := bytes.Repeat([]byte{0x55}, 65536)
	if !bytes.Equal(p, join(make([]byte, 32768), filled, make([]byte, 32768))) {
		t.Error("wrong bytes around the data")
	}
}

func TestTheBlockSizesOfNbdkitAreKept(t *testing.T) {
	socket := startNbdkit(t, "--filter=blocksize-policy", "pattern", "1M",
		"blocksize-minimum=4096", "blocksize-preferred=65536", "blocksize-maximum=131072", "blocksize-error-policy=error")
	c := dialSocket(t, socket, Config{})
	if c.MinBlock() != 4096 || c.PreferredBlock() != 65536 || c.MaxBlock() != 131072 {
		t.Fatalf("got %d, %d, %d", c.MinBlock(), c.PreferredBlock(), c.MaxBlock())
	}
	p := make([]byte, 1<<20)
	if err := c.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, patternAt(0, len(p))) {
		t.Errorf("a read of the whole disk failed: %v", err)
	}
	if err := c.ReadAt(context.Background(), p[:512], 0); !errors.Is(err, ErrInvalidRange) {
		t.Errorf("got %v, want ErrInvalidRange", err)
	}
}

func TestNbdkitWithoutStructuredRepliesCanBeRead(t *testing.T) {
	c := dialSocket(t, startNbdkit(t, "--no-sr", "pattern", "64M"), Config{MetaContexts: []string{allocation}})
	if c.export.structured || c.HasContext(allocation) {
		t.Fatal("structured replies were switched off")
	}
	p := make([]byte, 40<<20)
	if err := c.ReadAt(context.Background(), p, 1000); err != nil || !bytes.Equal(p, patternAt(1000, len(p))) {
		t.Errorf("read failed: %v", err)
	}
}
