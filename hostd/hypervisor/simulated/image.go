package simulated

import (
	"maps"
)

// clusterBytes is the granularity of images and of what their bitmaps tell.
const clusterBytes = 64 << 10

// image is the content of a disk. A cluster's bytes are never changed once they are in the map, so that a copy of the map
// is a view of the moment.
type image struct {
	sizeBytes int64
	clusters  map[int64][]byte // those that are not there are zeros

	lacks bool // what its backing file holds, or the disk that is copied into it, is not in it
	// strayed: a server ran on it while it lacked that.
	strayed bool
}

func newImage(sizeBytes int64) *image {
	return &image{sizeBytes: sizeBytes, clusters: map[int64][]byte{}}
}

func (i *image) view() *image {
	return &image{sizeBytes: i.sizeBytes, clusters: maps.Clone(i.clusters)}
}

// write returns the numbers of the clusters it wrote to.
func (i *image) write(p []byte, offset int64) []int64 {
	var written []int64
	for len(p) > 0 {
		number, within := offset/clusterBytes, offset%clusterBytes
		cluster := make([]byte, clusterBytes)
		copy(cluster, i.clusters[number])
		n := copy(cluster[within:], p)
		i.clusters[number] = cluster
		written = append(written, number)
		p, offset = p[n:], offset+int64(n)
	}
	return written
}

func (i *image) read(p []byte, offset int64) {
	for len(p) > 0 {
		number, within := offset/clusterBytes, offset%clusterBytes
		n := min(clusterBytes-int(within), len(p))
		if cluster, ok := i.clusters[number]; ok {
			copy(p[:n], cluster[within:])
		} else {
			clear(p[:n])
		}
		p, offset = p[n:], offset+int64(n)
	}
}

// bitmap is the set of clusters that were written to since it was made.
type bitmap map[int64]bool

func (b bitmap) add(other bitmap) {
	for number := range other {
		b[number] = true
	}
}
