package transport

import (
	"sync"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// GatherClusters is how many clusters one Received holds at most: 1 MiB, so that a disk gets large writes.
const GatherClusters = 16

// Received is one thing that the main side sent: exactly one of the fields is set.
type Received struct {
	Control  *umbrav1.MainMessage
	Clusters *Clusters
	Zeros    *Zeros
}

// Clusters is verified data of consecutive clusters, from one or more frames.
type Clusters struct {
	Disk  uint32
	First uint64
	Sums  []Sum  // one for each cluster
	Data  []byte // len(Sums) times ClusterBytes

	room []byte
	pool *sync.Pool
}

// Release gives the memory back; Sums and Data must not be used any more. Not calling it costs only memory.
func (c *Clusters) Release() {
	if c.pool == nil {
		return
	}
	pool := c.pool
	c.pool, c.Sums, c.Data = nil, c.Sums[:0], nil
	pool.Put(c)
}

// Zeros are consecutive clusters that are zero. First plus Count does not overflow.
type Zeros struct {
	Disk  uint32
	First uint64
	Count uint64
}

func newClusters(pool *sync.Pool) *Clusters {
	c, ok := pool.Get().(*Clusters)
	if !ok {
		c = &Clusters{room: make([]byte, GatherClusters*ClusterBytes), Sums: make([]Sum, 0, GatherClusters)}
	}
	c.pool, c.Data = pool, c.room[:0]
	return c
}
