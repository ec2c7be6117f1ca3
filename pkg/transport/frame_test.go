package transport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"testing"

	"google.golang.org/grpc/mem"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// rawBytes is a frame's encoding.
func rawBytes(f *rawFrame, err error) []byte {
	if err != nil {
		panic(err)
	}
	return f.data.Materialize()
}

func clustersBytes(n int) []byte {
	var pool sync.Pool
	b := newBuffer(FrameClustersMax, &pool)
	for i := range b.Data() {
		b.Data()[i] = byte(i >> 16)
	}
	sums := make([]Sum, n)
	for i := range sums {
		sums[i] = SumOf(b.Data()[i*ClusterBytes:][:ClusterBytes])
	}
	return rawBytes(b.seal(1, 9, sums))
}

// decoded is what a decoder of a whole frame finds, encoded again.
func decode(frame []byte, pieces int) (again []byte, err error) {
	var slices mem.BufferSlice
	for piece := range bytesChunks(frame, pieces) {
		slices = append(slices, mem.SliceBuffer(piece))
	}
	h, r, err := open(&rawFrame{data: slices})
	defer func() { _ = r.Close() }()
	if err != nil {
		return nil, err
	}
	again = make([]byte, headerBytes)
	h.put(again)
	switch h.kind {
	case frameClusters:
		g := gather{pools: &gatherPools{}}
		if err := g.add(h, r); err != nil {
			return nil, err
		}
		for _, sum := range g.c.Sums {
			b := sum.Bytes()
			again = append(again, b[:]...)
		}
		again = append(again, g.c.Data...)
	case frameControl:
		b := make([]byte, h.count)
		if err := readFull(r, b); err != nil {
			return nil, err
		}
		again = append(again, b...)
	default:
	}
	return again, nil
}

func bytesChunks(b []byte, size int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			n := min(size, len(b))
			if !yield(b[:n]) {
				return
			}
			b = b[n:]
		}
	}
}

func FuzzADecodedFrameIsTheOneThatWasSent(f *testing.F) {
	f.Add(clustersBytes(1))
	f.Add(rawBytes(zerosFrame(3, 4, 5)))
	f.Add(rawBytes(switchFrame(), nil))
	f.Add(rawBytes(controlFrame(&umbrav1.MainMessage{})))
	f.Add(rawBytes(controlFrame(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_Hello{
		Hello: &umbrav1.ReplicationHello{DrPair: "p"},
	}})))
	f.Fuzz(func(t *testing.T, frame []byte) {
		again, err := decode(frame, 16<<10)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Fatalf("not an ErrFrame: %v", err)
			}
			return
		}
		if !bytes.Equal(again, frame) {
			t.Fatalf("%d bytes decode to something else", len(frame))
		}
	})
}

func TestEveryFlippedBitOfDataIsNoticed(t *testing.T) {
	frame := clustersBytes(2)
	if _, err := decode(frame, 1000); err != nil {
		t.Fatal(err)
	}
	for at := headerBytes; at < len(frame); at += 997 {
		frame[at] ^= 1 << (at % 8)
		if _, err := decode(frame, 16<<10); !errors.Is(err, ErrChecksum) {
			t.Errorf("byte %d: %v", at, err)
		}
		frame[at] ^= 1 << (at % 8)
	}
}

func TestAFrameThatIsNotAsDescribedIsRefused(t *testing.T) {
	cases := map[string]func(b []byte) []byte{
		"kind 0":                 func(b []byte) []byte { b[0] = 0; return b },
		"kind 5":                 func(b []byte) []byte { b[0] = 5; return b },
		"switch of a disk":       func(b []byte) []byte { b[0] = byte(frameSwitch); return b },
		"switch with data":       func(b []byte) []byte { clear(b[4:headerBytes]); b[0] = byte(frameSwitch); return b },
		"compression flag":       func(b []byte) []byte { b[1] = 1; return b },
		"reserved":               func(b []byte) []byte { b[3] = 1; return b },
		"one byte short":         func(b []byte) []byte { return b[:len(b)-1] },
		"one byte more":          func(b []byte) []byte { return append(b, 0) },
		"header alone":           func(b []byte) []byte { return b[:headerBytes] },
		"half a header":          func(b []byte) []byte { return b[:headerBytes/2] },
		"nothing":                func([]byte) []byte { return nil },
		"count 0":                func(b []byte) []byte { return setCount(b, 0) },
		"count more":             func(b []byte) []byte { return setCount(b, 3) },
		"count beyond the limit": func(b []byte) []byte { return setCount(b, FrameClustersMax+1) },
		"count that overflows":   func(b []byte) []byte { return setCount(b, 1<<60) },
		"cluster beyond a disk":  func(b []byte) []byte { binary.BigEndian.PutUint64(b[8:], 1<<47-1); return b },
		"cluster that overflows": func(b []byte) []byte { binary.BigEndian.PutUint64(b[8:], 1<<64-1); return b },
		"zeros with data":        func(b []byte) []byte { b[0] = byte(frameZeros); return b },
		"control of a disk":      func(b []byte) []byte { b[0] = byte(frameControl); return b },
	}
	for name, change := range cases {
		frame := change(clustersBytes(2))
		if _, err := decode(frame, 16<<10); !errors.Is(err, ErrFrame) || errors.Is(err, ErrChecksum) {
			t.Errorf("%s: %v", name, err)
		}
	}
	zeros := rawBytes(zerosFrame(0, 1, 1))
	if _, err := decode(setCount(zeros, 1<<63), 7); !errors.Is(err, ErrFrame) {
		t.Errorf("zeros beyond every disk: %v", err)
	}
}

func setCount(b []byte, n uint64) []byte {
	binary.BigEndian.PutUint64(b[16:], n)
	return b
}
