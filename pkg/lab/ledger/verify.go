package ledger

import (
	"fmt"
	"io"
)

// Report is what a reader finds in a ledger.
type Report struct {
	ID    ID
	Disks int
	Ring  uint64 // records that fit before the oldest is overwritten

	Last         uint64 // the highest record that is right; 0 when there is none
	Gaps         int    // records that must be there, whose slot is blank or holds an older one
	BadChecksums int    // slots whose bytes are not what they must be
	Torn         bool   // the slot of record Last+1 holds part of a write that never completed

	FirstGap uint64 // number of the oldest missing record, 0 when none is
	FirstBad uint64 // number of the oldest damaged record, 0 when none is
}

// Intact says whether everything that must be there is there and right. A torn write of the record
// after the last does not count against it.
func (r Report) Intact() bool { return r.Gaps == 0 && r.BadChecksums == 0 }

// chunkBytes is how much is read at once: large reads, since a guest without acceleration pays for each.
const chunkBytes = 1 << 20

// Verify reads the areas of one ledger from beginning to end, in the order of their headers, and says
// what is there. allocate returns memory that the areas can be read into; nil means any will do. Damage
// is part of the report; the error is for areas that cannot be read or are no ledger.
func Verify(areas []io.ReaderAt, allocate func(size int) []byte) (Report, error) {
	if allocate == nil {
		allocate = func(size int) []byte { return make([]byte, size) }
	}
	header, err := readHeaders(len(areas), func(i int) io.ReaderAt { return areas[i] }, allocate(BlockBytes))
	if err != nil {
		return Report{}, err
	}
	layout := newLayout(header)
	perChunk := max(1, chunkBytes/header.RecordBytes)
	buffer := allocate(perChunk * header.RecordBytes)
	slots := make([][]found, len(areas))
	for i, area := range areas {
		slots[i], err = scan(area, header, buffer)
		if err != nil {
			return Report{}, fmt.Errorf("disk %d: %w", i, err)
		}
	}
	report := Report{ID: header.ID, Disks: header.Disks, Ring: layout.ring()}
	judge(&report, layout, slots)
	return report, nil
}

// scan says of every slot of one area what it holds.
func scan(area io.ReaderAt, header Header, buffer []byte) ([]found, error) {
	slots := make([]found, 0, header.Slots)
	scratch := make([]byte, header.RecordBytes)
	perChunk := uint64(len(buffer) / header.RecordBytes)
	for first := uint64(0); first < header.Slots; first += perChunk {
		count := int(min(perChunk, header.Slots-first))
		chunk := buffer[:count*header.RecordBytes]
		offset := BlockBytes + int64(first)*int64(header.RecordBytes)
		if _, err := area.ReadAt(chunk, offset); err != nil {
			return nil, fmt.Errorf("read %d bytes of the ledger at %d: %w", len(chunk), offset, err)
		}
		for ; len(chunk) > 0; chunk = chunk[header.RecordBytes:] {
			slots = append(slots, inspect(chunk[:header.RecordBytes], scratch, header.ID))
		}
	}
	return slots, nil
}

// judge compares what the slots hold with what they must hold.
func judge(report *Report, layout layout, slots [][]found) {
	at := func(n uint64) found {
		p := layout.place(n)
		return slots[p.disk][p.slot]
	}
	report.Last = lastRecord(layout, slots)
	ring := layout.ring()
	oldest := report.Last - min(report.Last, ring-1) + 1
	for n := oldest; n <= report.Last; n++ {
		switch at(n) {
		case found(n):
		case wrong:
			report.BadChecksums++
			report.FirstBad = firstOf(report.FirstBad, n)
		default:
			report.Gaps++
			report.FirstGap = firstOf(report.FirstGap, n)
		}
	}
	report.Torn = at(report.Last+1) == wrong
	// Beyond the record in flight nothing was ever written, until the ring is full.
	for n := report.Last + 2; n <= ring; n++ {
		if at(n) != blank {
			report.BadChecksums++
			report.FirstBad = firstOf(report.FirstBad, n)
		}
	}
}

// lastRecord returns the highest record that is right and where it belongs. A record that is right but
// lies elsewhere becomes wrong.
func lastRecord(layout layout, slots [][]found) uint64 {
	var last uint64
	for disk := range slots {
		for slot, held := range slots[disk] {
			if held == blank || held == wrong {
				continue
			}
			if (layout.place(uint64(held)) != place{disk: disk, slot: uint64(slot)}) {
				slots[disk][slot] = wrong
				continue
			}
			last = max(last, uint64(held))
		}
	}
	return last
}

func firstOf(already, n uint64) uint64 {
	if already != 0 {
		return already
	}
	return n
}
