package session

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// offsetsMax is how many measurements of a host's clock count. A clock that is set back is seen after so many inventories.
const offsetsMax = 8

// measure writes into an inventory that has just come by how much the host's clock is ahead. A message that is late on its way
// makes the clock seem behind, and nothing makes it seem ahead: so the largest of the last measurements is the best one.
func (h *hostSession) measure(inventory *umbrav1.Host, now time.Time) {
	inventory.ClockOffset = nil
	if inventory.GetClockTime() == nil {
		return
	}
	h.offsets = append(h.offsets, inventory.GetClockTime().AsTime().Sub(now))
	h.offsets = h.offsets[max(0, len(h.offsets)-offsetsMax):]
	inventory.ClockOffset = durationpb.New(slices.Max(h.offsets))
}
