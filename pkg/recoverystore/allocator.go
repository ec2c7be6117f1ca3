package recoverystore

import (
	"container/heap"
	"math/bits"
)

// allocator hands out space in one data file, in clusters. It prefers one long run, the lowest that
// fits from the smallest class of sizes; then it appends. Fragments too small for a request serve
// smaller requests, or any request once the file is mostly holes: holes take no blocks, only
// offsets, and a file system ends at some offset. Not safe for concurrent use.
type allocator struct {
	start, tail uint64            // the data area; what lies at and behind tail was never used
	byStart     map[uint64]uint64 // free extents: start to count
	byEnd       map[uint64]uint64 // and end to start
	class       [locBits + 1]offsetHeap
	live        [locBits + 1]int
	free        uint64 // clusters in free extents
}

const (
	// fragmentClusters is the smallest extent that a larger request is split for.
	fragmentClusters = 16
	// splitFreeShare and scrapFreeShare: with 1/4 of the file free requests are split over such
	// fragments, with 1/2 over any.
	splitFreeShare = 4
	scrapFreeShare = 2
	// staleMax bounds the outdated offsets that a heap keeps.
	staleMax = 64
)

func newAllocator(start, tail uint64) *allocator {
	return &allocator{start: start, tail: tail, byStart: map[uint64]uint64{}, byEnd: map[uint64]uint64{}}
}

func classOf(count uint64) int { return bits.Len64(count) - 1 }

// used returns the clusters that are neither free nor behind the tail.
func (a *allocator) used() uint64 { return a.tail - a.start - a.free }

func (a *allocator) extents() int { return len(a.byStart) }

// release makes an extent free and joins it to its neighbours.
func (a *allocator) release(e extent) {
	if e.count == 0 {
		return
	}
	if start, ok := a.byEnd[e.start]; ok {
		count := a.byStart[start]
		a.drop(extent{start, count})
		e = extent{start, count + e.count}
	}
	if count, ok := a.byStart[e.end()]; ok {
		a.drop(extent{e.end(), count})
		e.count += count
	}
	a.keep(e)
}

func (a *allocator) keep(e extent) {
	a.byStart[e.start] = e.count
	a.byEnd[e.end()] = e.start
	a.free += e.count
	c := classOf(e.count)
	a.live[c]++
	heap.Push(&a.class[c], e.start)
	if len(a.class[c]) > 2*a.live[c]+staleMax {
		a.sweep(c)
	}
}

func (a *allocator) drop(e extent) {
	delete(a.byStart, e.start)
	delete(a.byEnd, e.end())
	a.free -= e.count
	a.live[classOf(e.count)]--
}

// sweep rebuilds a heap without outdated offsets.
func (a *allocator) sweep(c int) {
	a.class[c] = a.class[c][:0]
	for start, count := range a.byStart {
		if classOf(count) == c {
			a.class[c] = append(a.class[c], start)
		}
	}
	heap.Init(&a.class[c])
}

// lowest returns the first extent of a class.
func (a *allocator) lowest(c int) (extent, bool) {
	h := &a.class[c]
	for len(*h) > 0 {
		start := (*h)[0]
		if count, ok := a.byStart[start]; ok && classOf(count) == c {
			return extent{start, count}, true
		}
		heap.Pop(h)
	}
	return extent{}, false
}

// alloc returns extents of count clusters together.
func (a *allocator) alloc(count uint64) []extent {
	if e, ok := a.fit(count); ok {
		return []extent{a.take(e, count)}
	}
	var out []extent
	smallest := a.smallestSplit()
	for smallest > 0 && count > 0 {
		e, ok := a.largest()
		if !ok || e.count < smallest {
			break
		}
		got := a.take(e, min(e.count, count))
		out = append(out, got)
		count -= got.count
	}
	if count > 0 {
		out = append(out, extent{a.tail, count})
		a.tail += count
	}
	return out
}

func (a *allocator) smallestSplit() uint64 {
	size := a.tail - a.start
	switch {
	case a.free*scrapFreeShare >= size:
		return 1
	case a.free*splitFreeShare >= size:
		return fragmentClusters
	}
	return 0
}

func (a *allocator) fit(count uint64) (extent, bool) {
	c := classOf(count)
	if e, ok := a.lowest(c); ok && e.count >= count {
		return e, true
	}
	for c++; c < len(a.class); c++ {
		if e, ok := a.lowest(c); ok {
			return e, true
		}
	}
	return extent{}, false
}

func (a *allocator) largest() (extent, bool) {
	for c := len(a.class) - 1; c >= 0; c-- {
		if e, ok := a.lowest(c); ok {
			return e, true
		}
	}
	return extent{}, false
}

// take removes the first count clusters of a free extent.
func (a *allocator) take(e extent, count uint64) extent {
	a.drop(e)
	if rest := (extent{e.start + count, e.count - count}); rest.count > 0 {
		a.keep(rest)
	}
	return extent{e.start, count}
}

// offsetHeap is a heap of offsets, lowest first.
type offsetHeap []uint64

func (h offsetHeap) Len() int           { return len(h) }
func (h offsetHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h offsetHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *offsetHeap) Push(x any) { *h = append(*h, x.(uint64)) }

// Pop implements heap.Interface.
func (h *offsetHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
