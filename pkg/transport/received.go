package transport

import (
	"sync"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	// gatherClustersMin is how many clusters a Received holds at most: 1 MiB.
	gatherClustersMin = 16
	// gatherClustersMax is how many it holds of a copy at full speed, which sends the largest frames there are: 8 MiB. A disk that is read
	// and written at once takes one large write sooner than some smaller ones. While a write of 8 MiB lasts, some 4 ms, every other
	// request at the disk waits, so that whatever makes way for a server sends smaller frames, and is stored in smaller writes.
	gatherClustersMax = 128
)

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

// gatherPools keep the memory of what was released, by its size.
type gatherPools struct{ small, large sync.Pool }

func (p *gatherPools) get(large bool) *Clusters {
	pool, clusters := &p.small, gatherClustersMin
	if large {
		pool, clusters = &p.large, gatherClustersMax
	}
	c, ok := pool.Get().(*Clusters)
	if !ok {
		c = &Clusters{room: make([]byte, clusters*ClusterBytes), Sums: make([]Sum, 0, clusters)}
	}
	c.pool, c.Data = pool, c.room[:0]
	return c
}
