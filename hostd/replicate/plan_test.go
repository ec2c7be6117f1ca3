package replicate

import (
	"testing"

	"pgregory.net/rapid"
)

// drawRanges makes ordered, separate or touching byte ranges on a disk.
func drawRanges(t *rapid.T, label string, size, align uint64) []byteRange {
	var out []byteRange
	for at := uint64(0); at < size && len(out) < 40; {
		at += align * rapid.SampledFrom(steps(align)).Draw(t, label+" gap")
		if at >= size {
			break
		}
		length := min(align*rapid.SampledFrom(steps(align)[1:]).Draw(t, label+" length"), size-at)
		out = append(out, byteRange{at, length})
		at += length
	}
	return out
}

func drawSize(t *rapid.T) uint64 {
	clusters := rapid.SampledFrom([]uint64{1, 2, 3, 63, 64, 65, 90, 128, 200}).Draw(t, "size in clusters")
	return clusters*clusterBytes - 512*rapid.SampledFrom([]uint64{0, 0, 1, 64, 127}).Draw(t, "sectors that are missing at the end")
}

// steps are lengths around those of clusters and words, in units. Drawn from a range they would nearly all be small.
func steps(unit uint64) []uint64 {
	out := []uint64{0, 1}
	for _, clusters := range []uint64{1, 2, 5, 64} {
		n := clusters * clusterBytes / unit
		out = append(out, max(n, 2)-1, max(n, 1), n+1)
	}
	return out
}

func TestAPlanCoversItsSpanInOrderAndReadsAllThatMayNotBeZero(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := drawSize(t)
		zeros := drawRanges(t, "zero", size, 512)
		all := clustersOf(int64(size))
		s := drawSpan(t, all)

		zeroBytes := make([]uint64, all) // zero bytes in each cluster
		for _, z := range zeros {
			for at := z.off; at < z.off+z.length; at += 512 {
				zeroBytes[at/clusterBytes] += 512
			}
		}
		at := s.from
		for i, it := range plan(s, zeros, int64(size)) {
			if it.from != at || it.to <= it.from {
				t.Fatalf("item %d is %v, the one before ends at %d", i, it, at)
			}
			for c := it.from; c < it.to; c++ {
				onDisk := min(size-c*clusterBytes, clusterBytes)
				if isZero := zeroBytes[c] == onDisk; isZero != it.zero {
					t.Fatalf("cluster %d: planned as zero: %v, is zero: %v", c, it.zero, isZero)
				}
			}
			at = it.to
		}
		if at != s.to {
			t.Fatalf("the plan ends at %d of %d", at, s.to)
		}
	})
}

// drawSpan draws a part of all clusters, often one that is all of them.
func drawSpan(t *rapid.T, all uint64) span {
	percent := []uint64{0, 0, 30, 50, 97, 100, 100}
	a := all * rapid.SampledFrom(percent).Draw(t, "from, in percent") / 100
	b := all * rapid.SampledFrom(percent).Draw(t, "to, in percent") / 100
	return span{min(a, b), max(a, b)}
}

func TestRunsOfADirtySetAreExactlyTheClustersTouched(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := drawSize(t)
		align := rapid.SampledFrom([]uint64{512, 4096, clusterBytes, 4 * clusterBytes}).Draw(t, "granularity")
		all := clustersOf(int64(size))
		set := makeDirtySet(all)
		want := make([]bool, all)
		for _, r := range drawRanges(t, "dirty", size, align) {
			set.addBytes(r.off, r.length)
			for at := r.off; at < r.off+r.length; at += 512 {
				want[at/clusterBytes] = true
			}
		}
		limit := drawSpan(t, all).to
		got := make([]bool, all)
		var runs []span
		for from := uint64(0); ; {
			run, ok := set.nextRun(from, limit)
			if !ok {
				break
			}
			if len(runs) > 0 && run.from <= runs[len(runs)-1].to {
				t.Fatalf("runs %v and %v are not apart", runs[len(runs)-1], run)
			}
			runs = append(runs, run)
			for c := run.from; c < run.to; c++ {
				got[c] = true
			}
			from = run.to
		}
		var count uint64
		for c := range limit {
			if got[c] != want[c] {
				t.Fatalf("cluster %d: in a run: %v, touched: %v", c, got[c], want[c])
			}
			if want[c] {
				count++
			}
		}
		if n := set.count(limit); n != count {
			t.Fatalf("count is %d, want %d", n, count)
		}
	})
}

func TestPiecesCoverASpanAndNeverCrossAMultiple(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpan(t, 200)
		size := rapid.Uint64Range(1, 20).Draw(t, "size")
		at := s.from
		for _, p := range pieces(s, size) {
			if p.from != at || p.to <= p.from || p.from/size != (p.to-1)/size {
				t.Fatalf("piece %v of %v by %d", p, s, size)
			}
			at = p.to
		}
		if at != s.to {
			t.Fatalf("pieces end at %d of %v", at, s)
		}
	})
}
