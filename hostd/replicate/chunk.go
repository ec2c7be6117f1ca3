package replicate

import (
	"bytes"
	"context"

	"github.com/umbra-dr/umbra/pkg/nbd"
	"github.com/umbra-dr/umbra/pkg/transport"
)

const (
	// chunkClustersMax is how much is read and sent at once at full speed: 1 MiB, since a disk does few large reads sooner than
	// many small ones.
	chunkClustersMax = transport.FrameClustersMax
	// chunkClustersSparing is how much while the server's own requests may have to wait behind it: 256 KiB.
	chunkClustersSparing = 4
)

var (
	zeroCluster [clusterBytes]byte
	// zeroSum is the checksum that stands for a cluster of zeros.
	zeroSum = transport.SumOf(zeroCluster[:])
)

// chunk is a piece of work on its way from the reader to the stream.
type chunk struct {
	disk int
	span
	kind    chunkKind
	compare bool                            // clusters that the shadow holds already are not sent
	buffer  *transport.Buffer               // of kind chunkRead, until it is sent
	data    []byte                          // of kind chunkRead: whole clusters, padded with zeros
	sums    [chunkClustersMax]transport.Sum // of kind chunkRead
	err     error                           // why it could not be read
	ready   chan struct{}                   // of kind chunkRead: closed when data, sums and err are set
}

type chunkKind uint8

const (
	chunkRead chunkKind = iota // clusters to read
	chunkZero                  // clusters known to be zero, any number of them
	chunkAsk                   // a request for the checksums of the span
	chunkMark                  // everything below span.to is covered: tell the shadow
)

// read fills a chunk from the export and hashes it. sizeBytes is the size of the disk.
func (c *chunk) read(ctx context.Context, export *nbd.Client, sizeBytes uint64) {
	defer close(c.ready)
	off := c.from * clusterBytes
	want := min(uint64(len(c.data)), sizeBytes-off)
	clear(c.data[want:])
	if err := export.ReadAt(ctx, c.data[:want], off); err != nil {
		c.err = err
		return
	}
	for i := range c.clusters() {
		c.sums[i] = sumOf(c.data[i*clusterBytes : (i+1)*clusterBytes])
	}
}

// sumOf is the checksum of a cluster. Comparing with zeros is cheaper than hashing and ends at the first other byte.
func sumOf(cluster []byte) transport.Sum {
	if bytes.Equal(cluster, zeroCluster[:]) {
		return zeroSum
	}
	return transport.SumOf(cluster)
}
