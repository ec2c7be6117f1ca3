package transport

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/mem"
)

// Buffer is room for the clusters of one frame, with room before them for what goes ahead of them on the wire. It
// belongs to one goroutine at a time, and after SendClusters or Free to nobody.
type Buffer struct {
	all      []byte // room for header and checksums, then the data
	clusters int
	pool     *sync.Pool
	frame    []byte // the part of all that is sent
}

// newBuffer makes room for so many clusters.
func newBuffer(clusters int, pool *sync.Pool) *Buffer {
	return &Buffer{all: make([]byte, frameRoom(clusters)+clusters*ClusterBytes), clusters: clusters, pool: pool}
}

func frameRoom(clusters int) int { return headerBytes + clusters*sumBytes }

// Data is where the clusters go. It holds anything at first.
func (b *Buffer) Data() []byte { return b.all[frameRoom(b.clusters):] }

// Free gives the buffer back unsent.
func (b *Buffer) Free() { b.pool.Put(b) }

// seal makes the first len(sums) clusters a frame. The header ends where the data begins, however few clusters are used.
func (b *Buffer) seal(disk uint32, first uint64, sums []Sum) (*rawFrame, error) {
	n := len(sums)
	h := header{kind: frameClusters, disk: disk, first: first, count: uint64(n)}
	if n == 0 || n > b.clusters {
		return nil, fmt.Errorf("%w: %d checksums for a buffer of %d clusters", ErrTooLarge, n, b.clusters)
	}
	if err := checkRange(h); err != nil {
		return nil, err
	}
	data := frameRoom(b.clusters)
	b.frame = b.all[data-frameRoom(n) : data+n*ClusterBytes]
	h.put(b.frame)
	for i, sum := range sums {
		putSum(b.frame[headerBytes+i*sumBytes:], sum)
	}
	return &rawFrame{data: mem.BufferSlice{mem.NewBuffer(&b.frame, sentBuffer{b})}}, nil
}

// sentBuffer is the pool that gRPC returns a sent frame to: the buffer goes back whole.
type sentBuffer struct{ b *Buffer }

// Get is never called: gRPC takes nothing from here.
func (s sentBuffer) Get(length int) *[]byte { b := make([]byte, length); return &b }

// Put is called once the last reference is gone.
func (s sentBuffer) Put(*[]byte) { s.b.Free() }

// sendPools has one pool for each size of a buffer.
type sendPools [FrameClustersMax + 1]sync.Pool

func (p *sendPools) get(clusters int) *Buffer {
	clusters = min(max(clusters, 1), FrameClustersMax)
	if b, ok := p[clusters].Get().(*Buffer); ok {
		return b
	}
	return newBuffer(clusters, &p[clusters])
}
