package recoverystore

import "math/bits"

// clusterSet is a set of places in a data file: a bit for each, in pages, since a place can be anywhere.
type clusterSet struct {
	pages map[uint64]*clusterPage
	last  uint64 // number of the page that was used last
	page  *clusterPage
	end   uint64 // behind the last place
}

const pageClusters = 1 << 16

type clusterPage [pageClusters / 64]uint64

func newClusterSet() *clusterSet { return &clusterSet{pages: map[uint64]*clusterPage{}} }

func (s *clusterSet) at(number uint64) *clusterPage {
	if s.page == nil || s.last != number {
		s.last, s.page = number, s.pages[number]
	}
	return s.page
}

func (s *clusterSet) add(e extent) {
	s.end = max(s.end, e.end())
	for place := e.start; place < e.end(); {
		number := place / pageClusters
		p := s.at(number)
		if p == nil {
			p = &clusterPage{}
			s.pages[number], s.page = p, p
		}
		// As many as one word has.
		n := min(64-place%64, e.end()-place)
		p[place%pageClusters/64] |= (1<<n - 1) << (place % 64)
		place += n
	}
}

// next returns the first place from at on that is in the set, or that is not; to if there is none before.
func (s *clusterSet) next(at, to uint64, in bool) uint64 {
	for at < to {
		p := s.at(at / pageClusters)
		if p == nil {
			if !in {
				return at
			}
			at = (at/pageClusters + 1) * pageClusters
			continue
		}
		word := p[at%pageClusters/64]
		if !in {
			word = ^word
		}
		if word &= ^uint64(0) << (at % 64); word != 0 {
			return min(to, at&^63+uint64(bits.TrailingZeros64(word)))
		}
		at = at&^63 + 64
	}
	return to
}

// holes returns what is not in the set, in order.
func (s *clusterSet) holes(from, to uint64) []extent {
	var out []extent
	for {
		start := s.next(from, to, false)
		if start >= to {
			return out
		}
		from = s.next(start, to, true)
		out = append(out, extent{start, from - start})
	}
}

// without returns what of the extents is not in the set and lies in the bounds.
func (s *clusterSet) without(list []extent, from, to uint64) []extent {
	var out []extent
	for _, e := range list {
		out = append(out, s.holes(max(e.start, from), min(e.end(), to))...)
	}
	return joined(out)
}
