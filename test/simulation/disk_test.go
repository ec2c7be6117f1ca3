package simulation_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
)

const cluster = 64 << 10

// diskSizes are the disks of every server. The last cluster of the first is not whole.
var (
	diskNames = []string{"vda", "vdb"}
	diskSizes = map[string]int64{"vda": 20*cluster + 4096, "vdb": 6 * cluster}
)

// history is what a server's disks held at each moment, kept apart from everything that is tested: the list of writes. A version is
// a number of writes; a moment is the version that a checkpoint was taken at.
type history struct {
	mu      sync.Mutex // held over a write and over the moment of a checkpoint, so that they have an order
	writes  []diskWrite
	moments map[string]int
}

type diskWrite struct {
	disk           string
	offset, length int64
	seed           uint64 // 0: zeros
}

func newHistory() *history { return &history{moments: map[string]int{}} }

// randomWrite draws the next write of a guest.
func randomWrite(r *rand.Rand) diskWrite {
	disk := diskNames[r.IntN(len(diskNames))]
	length := int64(512 * (1 + r.IntN(8)))
	if r.IntN(6) == 0 {
		length = int64(cluster * (1 + r.IntN(3)))
	}
	length = min(length, diskSizes[disk])
	offset := r.Int64N((diskSizes[disk]-length)/512+1) * 512
	w := diskWrite{disk: disk, offset: offset, length: length, seed: r.Uint64()>>1 + 1}
	if r.IntN(8) == 0 {
		w.seed = 0
	}
	return w
}

func (w diskWrite) bytes() []byte {
	p := make([]byte, w.length)
	if w.seed == 0 {
		return p
	}
	for i := 0; i+8 <= len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], w.seed*uint64(i+1))
	}
	return p
}

func (h *history) version() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.writes)
}

// moment is the version that the checkpoint's backup job shows.
func (h *history) moment(checkpoint string) (int, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	version, ok := h.moments[checkpoint]
	return version, ok
}

// content is what a disk held after the first writes.
func (h *history) content(disk string, version int) []byte {
	h.mu.Lock()
	writes := slices.Clone(h.writes[:version])
	h.mu.Unlock()
	p := make([]byte, diskSizes[disk])
	for _, w := range writes {
		if w.disk == disk {
			copy(p[w.offset:], w.bytes())
		}
	}
	return p
}
