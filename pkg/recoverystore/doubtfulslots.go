package recoverystore

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"slices"
)

// findDoubtfulSlots finds the slots that an unreadable view may have: all that no other has, and in which there is something.
// Nothing in them is touched until the view is closed. A view whose record cannot be is as good as unreadable. It needs a store
// that nobody uses yet, and the disks.
func (s *Store) findDoubtfulSlots() {
	doubt := false
	for seq, r := range s.views {
		if !s.possible(r) {
			r = viewRecord{unreadable: true}
			s.views[seq] = r
		}
		doubt = doubt || r.unreadable
	}
	for slot := range viewSlots {
		if doubt && !s.slotTaken(slot) && !s.slotBlank(slot) {
			s.doubtful = append(s.doubtful, slot)
		}
	}
}

func (s *Store) possible(r viewRecord) bool {
	for _, d := range r.Disks {
		if s.disks[d.ID] == nil {
			return false
		}
	}
	return r.Slot >= 0 && r.Slot < viewSlots
}

// slotBlank says whether no disk has the beginning of a view in the slot.
func (s *Store) slotBlank(slot int) bool {
	for _, d := range s.disks {
		head := make([]byte, 16)
		if _, err := d.file.ReadAt(head, d.slotOffset(slot)); err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		if !bytes.Equal(head, make([]byte, len(head))) {
			return false
		}
	}
	return true
}

// forgetDoubt notes that a view whose record is unreadable was closed, and gives up the doubtful slots when it was the last such.
// It needs viewMu.
func (s *Store) forgetDoubt(closed uint64) {
	s.mu.Lock()
	delete(s.views, closed)
	var slots []int
	if !slices.ContainsFunc(slices.Collect(maps.Values(s.views)), func(r viewRecord) bool { return r.unreadable }) {
		slots = s.doubtful
	}
	disks := slices.Collect(maps.Values(s.disks))
	s.mu.Unlock()
	if slots == nil {
		return
	}
	for _, slot := range slots {
		s.clearSlot(disks, slot)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubtful = nil
}
