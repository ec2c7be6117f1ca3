package replicate

// span is a range of clusters, to excluded.
type span struct{ from, to uint64 }

func (s span) clusters() uint64 { return s.to - s.from }

// byteRange is a range of bytes of a disk.
type byteRange struct{ off, length uint64 }

// item is a run of clusters that are handled alike.
type item struct {
	span
	zero bool // all of it is known to be zero, without reading
}

// plan splits the clusters of s into what must be read and what is known to be zero. zeros are byte ranges that read
// as zero, in order and not overlapping; a cluster is zero when such ranges cover all of it that lies on the disk. The items are in order, cover s
// exactly, and neighbours differ.
func plan(s span, zeros []byteRange, sizeBytes int64) []item {
	var items []item
	add := func(to uint64, zero bool) {
		from := s.from
		if n := len(items); n > 0 {
			from = items[n-1].to
		}
		if to <= from {
			return
		}
		if n := len(items); n > 0 && items[n-1].zero == zero {
			items[n-1].to = to
			return
		}
		items = append(items, item{span{from, to}, zero})
	}
	for _, z := range joined(zeros) {
		from := max((z.off+clusterBytes-1)/clusterBytes, s.from)
		to := (z.off + z.length) / clusterBytes
		if z.off+z.length >= uint64(sizeBytes) {
			to = clustersOf(sizeBytes) // the rest of a partial last cluster is padding, and that is zero
		}
		to = min(to, s.to)
		if from < to {
			add(from, false)
			add(to, true)
		}
	}
	add(s.to, false)
	return items
}

// joined merges ranges that touch: a cluster may be zero by two of them.
func joined(ranges []byteRange) []byteRange {
	var out []byteRange
	for _, r := range ranges {
		if n := len(out); n > 0 && out[n-1].off+out[n-1].length == r.off {
			out[n-1].length += r.length
			continue
		}
		if r.length > 0 {
			out = append(out, r)
		}
	}
	return out
}

// pieces splits a span at multiples of size clusters.
func pieces(s span, size uint64) []span {
	var out []span
	for s.from < s.to {
		to := min((s.from/size+1)*size, s.to)
		out = append(out, span{s.from, to})
		s.from = to
	}
	return out
}
