package replicate

import "math/bits"

// clusterBytes is the unit of everything that is read, compared and sent.
const clusterBytes = 64 << 10

// clustersOf is the number of clusters of a disk; the last may be a partial one.
func clustersOf(sizeBytes int64) uint64 {
	return (uint64(sizeBytes) + clusterBytes - 1) / clusterBytes
}

// dirtySet holds one bit for each cluster of a disk: 2 MiB for a disk of 1 TiB, however fragmented the changes are.
type dirtySet struct {
	words    []uint64
	clusters uint64
}

func makeDirtySet(clusters uint64) *dirtySet {
	return &dirtySet{words: make([]uint64, (clusters+63)/64), clusters: clusters}
}

// addBytes marks every cluster that the byte range touches: a bitmap's granularity need not be ours.
func (s *dirtySet) addBytes(off, length uint64) {
	if length == 0 {
		return
	}
	from := off / clusterBytes
	to := min((off+length-1)/clusterBytes+1, s.clusters)
	for from < to {
		bit := from % 64
		n := min(64-bit, to-from)
		s.words[from/64] |= (^uint64(0) >> (64 - n)) << bit
		from += n
	}
}

// count is the number of marked clusters below limit.
func (s *dirtySet) count(limit uint64) uint64 {
	limit = min(limit, s.clusters)
	var n uint64
	for i := range limit / 64 {
		n += uint64(bits.OnesCount64(s.words[i]))
	}
	if rest := limit % 64; rest != 0 {
		n += uint64(bits.OnesCount64(s.words[limit/64] & (1<<rest - 1)))
	}
	return n
}

// nextRun returns the first run of marked clusters in from..limit. ok is false when there is none.
func (s *dirtySet) nextRun(from, limit uint64) (run span, ok bool) {
	limit = min(limit, s.clusters)
	first := s.next(from, limit, 0)
	if first >= limit {
		return span{}, false
	}
	return span{from: first, to: s.next(first, limit, ^uint64(0))}, true
}

// next is the first cluster in from..limit whose bit is set in its word xor flip, or limit.
func (s *dirtySet) next(from, limit, flip uint64) uint64 {
	for from < limit {
		word := (s.words[from/64] ^ flip) >> (from % 64)
		if word != 0 {
			return min(from+uint64(bits.TrailingZeros64(word)), limit)
		}
		from = (from/64 + 1) * 64
	}
	return limit
}
