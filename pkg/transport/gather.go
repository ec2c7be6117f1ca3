package transport

import (
	"fmt"
	"io"
)

// gather collects the data of frames that continue one another.
type gather struct {
	pools *gatherPools
	c     *Clusters // nil when there is nothing
}

// takes says whether the frame's clusters continue what is here, and fit.
func (g *gather) takes(h header) bool {
	if g.c == nil {
		return true
	}
	n := uint64(len(g.c.Sums))
	return g.c.Disk == h.disk && g.c.First+n == h.first && n+h.count <= uint64(cap(g.c.Sums))
}

// add reads a frame's clusters and verifies them while they are in the processor's cache. takes must have
// said yes.
func (g *gather) add(h header, r io.Reader) error {
	if g.c == nil {
		g.c = g.pools.get(h.count == FrameClustersMax)
		g.c.Disk, g.c.First = h.disk, h.first
	}
	var sums [FrameClustersMax * sumBytes]byte
	if err := readFull(r, sums[:h.count*sumBytes]); err != nil {
		return err
	}
	for i := range h.count {
		at := len(g.c.Data)
		cluster := g.c.room[at : at+ClusterBytes]
		if err := readFull(r, cluster); err != nil {
			return err
		}
		want := getSum(sums[i*sumBytes:])
		if SumOf(cluster) != want {
			return fmt.Errorf("%w: disk %d, cluster %d", ErrChecksum, h.disk, h.first+i)
		}
		g.c.Data = g.c.room[:at+ClusterBytes]
		g.c.Sums = append(g.c.Sums, want)
	}
	return nil
}

// full says that nothing more fits.
func (g *gather) full() bool { return g.c != nil && len(g.c.Sums) == cap(g.c.Sums) }

// take returns what is here, nil if nothing is, and begins anew.
func (g *gather) take() *Clusters {
	c := g.c
	g.c = nil
	return c
}
