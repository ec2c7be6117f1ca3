package recoverystore

import (
	"fmt"
	"slices"
)

// damageWalk follows each damaged version from the seq it was born at to the seq that replaced it.
type damageWalk struct {
	bad    diskExtents
	points []*pointRecord
	disks  map[uint32]uint64 // clusters
	state  damageState
	since  [ChunkClusters]uint64 // seq of the damaged version that is current; 0: none
}

func (w *damageWalk) walk(chunks chunkStore) error {
	var at chunkKey
	c := chunks.locs.Cursor()
	for key, v := c.First(); key != nil; key, v = c.Next() {
		k, seq, ok := parseEntryKey(key)
		if !ok {
			return fmt.Errorf("%w: key %x", ErrCorruptIndex, key)
		}
		if k != at {
			w.finishChunk(at)
			at = k
		}
		e, err := chunks.decode(key, v)
		if err != nil {
			// Nobody can say what it held, or whether that is still right.
			w.version(k, seq, run{count: w.clustersIn(k)}, true)
			continue
		}
		for _, r := range e.runs {
			w.version(k, seq, r, false)
		}
	}
	w.finishChunk(at)
	return nil
}

func (w *damageWalk) version(k chunkKey, seq uint64, r run, unreadable bool) {
	for i := range r.count {
		cluster := r.first + i
		if from := w.since[cluster]; from != 0 {
			w.affected(k.disk, from, seq)
		}
		w.since[cluster] = 0
		if unreadable || !r.zero && w.isBad(k.disk, r.loc+uint64(i)) {
			w.since[cluster] = seq
		}
	}
}

func (w *damageWalk) clustersIn(k chunkKey) int {
	return int(min(ChunkClusters, w.disks[k.disk]-min(w.disks[k.disk], uint64(k.chunk)*ChunkClusters)))
}

func (w *damageWalk) isBad(disk uint32, loc uint64) bool {
	_, found := slices.BinarySearchFunc(w.bad[disk], loc, func(e extent, loc uint64) int {
		switch {
		case e.end() <= loc:
			return -1
		case e.start > loc:
			return 1
		}
		return 0
	})
	return found
}

func (w *damageWalk) affected(disk uint32, from, to uint64) {
	for _, p := range w.points {
		if p.Seq >= from && p.Seq < to && p.hasDisk(disk) {
			w.state.points[p.Seq] = true
		}
	}
}

func (w *damageWalk) finishChunk(k chunkKey) {
	for i, from := range w.since {
		if from == 0 {
			continue
		}
		w.affected(k.disk, from, maxSeq)
		if w.state.latest[k] == nil {
			w.state.latest[k] = &chunkBits{}
		}
		w.state.latest[k].set(i)
	}
	w.since = [ChunkClusters]uint64{}
}
