package recoverystore

import (
	"context"

	"github.com/zeebo/xxh3"
)

// readClusters is how much one read takes: 1 MiB.
const readClusters = 16

// hashStored reads clusters of one disk and calls fn with the index and the checksum of each; readable
// is false where the file could not be read. The list should be in the order of places.
func (d *disk) hashStored(ctx context.Context, list []storedCluster, fn func(i int, got Sum, readable bool)) error {
	buf := make([]byte, min(readClusters, len(list))*ClusterSize)
	for i := 0; i < len(list); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := 1
		for n < readClusters && i+n < len(list) && list[i+n].loc == list[i].loc+uint64(n) {
			n++
		}
		d.hashRun(list[i:i+n], buf, func(j int, got Sum, readable bool) { fn(i+j, got, readable) })
		i += n
	}
	return nil
}

// hashRun reads neighbouring clusters at once, or one by one when that fails.
func (d *disk) hashRun(list []storedCluster, buf []byte, fn func(i int, got Sum, readable bool)) {
	part := buf[:len(list)*ClusterSize]
	_, err := d.file.ReadAt(part, int64(list[0].loc)*ClusterSize)
	for i, c := range list {
		one := part[i*ClusterSize:][:d.clusterBytes(c.cluster())]
		readable := err == nil
		if !readable {
			_, oneErr := d.file.ReadAt(one, int64(c.loc)*ClusterSize)
			readable = oneErr == nil
		}
		fn(i, xxh3.Hash128(one), readable)
	}
}

// suspects reads clusters back and returns those that do not match.
func (d *disk) suspects(ctx context.Context, list []storedCluster) ([]storedCluster, error) {
	var bad []storedCluster
	err := d.hashStored(ctx, list, func(i int, got Sum, readable bool) {
		if !readable || got != list[i].sum {
			bad = append(bad, list[i])
		}
	})
	return bad, err
}

// stored lists the data clusters of a chunk.
func (c *cells) stored(k chunkKey) []storedCluster {
	var out []storedCluster
	for i := range c.cell {
		if at := &c.cell[i]; at.state == cellData {
			out = append(out, storedCluster{k, i, at.loc, at.sum})
		}
	}
	return out
}
