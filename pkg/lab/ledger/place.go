package ledger

// place is where a record lives.
type place struct {
	disk int
	slot uint64 // of that disk, in the order of its bytes
}

// layout maps record numbers, which begin at 1, to places and back to offsets.
type layout struct {
	disks       uint64
	slots       uint64 // of each disk
	stride      uint64
	recordBytes int64
}

func newLayout(h Header) layout {
	return layout{disks: uint64(h.Disks), slots: h.Slots, stride: strideFor(h.Slots), recordBytes: int64(h.RecordBytes)}
}

// ring is how many records fit before the oldest is overwritten.
func (l layout) ring() uint64 { return l.disks * l.slots }

func (l layout) place(n uint64) place {
	i := (n - 1) % l.ring()
	return place{disk: int(i % l.disks), slot: i / l.disks * l.stride % l.slots}
}

func (l layout) offset(p place) int64 { return BlockBytes + int64(p.slot)*l.recordBytes }

// strideFor returns a step that is coprime to slots, so that stepping visits every slot once, and
// near the golden section of it, so that neighbours in time lie far apart on the disk.
func strideFor(slots uint64) uint64 {
	for stride := max(1, slots*618/1000); ; stride++ {
		if greatestCommonDivisor(stride, slots) == 1 {
			return stride
		}
	}
}

func greatestCommonDivisor(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
