package recoverystore

// cellState says what a chunk's cluster holds.
type cellState uint8

const (
	cellAbsent cellState = iota // no version: reads as zero
	cellZero
	cellData
)

type cell struct {
	state cellState
	loc   uint64
	sum   Sum
}

// cells is one chunk spread out, a cell for each cluster; the working form for laying versions over
// one another.
type cells struct {
	cell [ChunkClusters]cell
	set  int // cells that are not absent
}

func (c *cells) reset() { *c = cells{} }

// lay puts e over what is there. freed, unless nil, is told of each data cluster that is covered by
// something stored elsewhere.
func (c *cells) lay(e entry, freed func(loc uint64)) {
	sum := 0
	for _, r := range e.runs {
		for i := range r.count {
			at := &c.cell[r.first+i]
			if at.state == cellAbsent {
				c.set++
			}
			// The same place twice is one version, met again when a commit is repeated.
			if freed != nil && at.state == cellData && (r.zero || at.loc != r.loc+uint64(i)) {
				freed(at.loc)
			}
			if r.zero {
				*at = cell{state: cellZero}
				continue
			}
			*at = cell{state: cellData, loc: r.loc + uint64(i), sum: e.sumAt(sum)}
			sum++
		}
	}
}

// fill puts e under what is there: only absent cells take it.
func (c *cells) fill(e entry) {
	sum := 0
	for _, r := range e.runs {
		for i := range r.count {
			at := &c.cell[r.first+i]
			if at.state == cellAbsent {
				c.set++
				if r.zero {
					at.state = cellZero
				} else {
					*at = cell{state: cellData, loc: r.loc + uint64(i), sum: e.sumAt(sum)}
				}
			}
			if !r.zero {
				sum++
			}
		}
	}
}

// sumAt allows entries that were read without their checksums.
func (e entry) sumAt(i int) Sum {
	if e.sums == nil {
		return Sum{}
	}
	return e.sums[i]
}

// dropZeros makes zero cells absent; right when nothing older lies below.
func (c *cells) dropZeros() {
	for i := range c.cell {
		if c.cell[i].state == cellZero {
			c.cell[i] = cell{}
			c.set--
		}
	}
}

// assumeData takes absent cells for data: what they hold could not be found out.
func (c *cells) assumeData() {
	for i := range c.cell {
		if c.cell[i].state == cellAbsent {
			c.cell[i].state = cellData
			c.set++
		}
	}
}

// entry returns the cells as runs, as few as possible.
func (c *cells) entry() entry {
	var e entry
	for i := range c.cell {
		at := &c.cell[i]
		if at.state == cellAbsent {
			continue
		}
		if at.state == cellData {
			e.sums = append(e.sums, at.sum)
		}
		e.runs = appendRun(e.runs, run{first: i, count: 1, zero: at.state == cellZero, loc: at.loc})
	}
	return e
}

// appendRun joins r to the last run when it continues it.
func appendRun(runs []run, r run) []run {
	if n := len(runs); n > 0 {
		last := &runs[n-1]
		if last.end() == r.first && last.zero == r.zero && (r.zero || last.loc+uint64(last.count) == r.loc) {
			last.count += r.count
			return runs
		}
	}
	return append(runs, r)
}
