package session

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	// keepInventoryEvery is the slow beat at which inventories are stored: 10,000 hosts together must not fill the
	// store's history with them.
	keepInventoryEvery = 15 * time.Minute
	// keepInventoryRetry is the least time between two stores of one host, however often its address changes.
	keepInventoryRetry = 10 * time.Second
	// keepInventoryTimeout bounds how long a store that hangs keeps the host from being listened to.
	keepInventoryTimeout = 3 * time.Second
)

// take takes one message in. The error is a breach.
func (h *hostSession) take(ctx context.Context, request *umbrav1.SessionRequest) error {
	switch message := request.GetMessage().(type) {
	case *umbrav1.SessionRequest_Inventory:
		if oversized(message.Inventory) {
			return breach{status.Errorf(codes.InvalidArgument, "an inventory of %d bytes: at most %d are taken", proto.Size(message.Inventory), inventoryBytesMax)}
		}
		h.inventory(ctx, message.Inventory)
	case *umbrav1.SessionRequest_Reports:
		h.reports(message.Reports.GetReports())
	case *umbrav1.SessionRequest_QueryAnswer:
		h.answered(message.QueryAnswer)
	case *umbrav1.SessionRequest_Heartbeat:
	case nil: // of a newer hostd, which may not send what the host's pairs depend on in this way
		if !h.strange {
			h.strange = true
			h.server.Log.Warn("the host sends messages of a kind that is not known here, which are passed over; upgrade the control plane", "host", h.host)
		}
	default:
		return breach{status.Errorf(codes.InvalidArgument, "a message that does not belong here: %T", message)}
	}
	return nil
}

func (h *hostSession) inventory(ctx context.Context, inventory *umbrav1.Host) {
	now := h.server.Clock.Now()
	known, _ := h.server.Observed.Host(h.host)
	h.measure(inventory, now)
	h.server.Observed.SetInventory(h.host, h.number, inventory, now)
	if known.Inventory != nil && h.keepNext.IsZero() { // it is in the store already
		h.keepNext = now.Add(keepInventoryEvery)
	}
	moved := known.Inventory.GetDataAddress() != inventory.GetDataAddress()
	if now.Before(h.keepRetry) || !moved && now.Before(h.keepNext) {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, keepInventoryTimeout)
	defer cancel()
	h.keepRetry = now.Add(keepInventoryRetry)
	if err := h.server.KeepHost(bounded, h.host, inventory); err != nil {
		h.keepNext = h.keepRetry
		h.server.Log.Warn("host's inventory not stored, trying again later", "host", h.host, "error", err)
		return
	}
	h.keepNext = now.Add(keepInventoryEvery)
}

// reports passes on what the host observes for pairs that are its own. A report of a pair that is not is passed over:
// it is late, or the host has no business with that pair.
func (h *hostSession) reports(reports []*umbrav1.AssignmentReport) {
	for _, report := range reports {
		entry, ok := h.server.Records.Get(report.GetDrPair())
		p := entry.Record.Pair
		switch {
		case !ok, report.GetRole() == nil,
			report.GetDrPairUid() != "" && report.GetDrPairUid() != p.UID,
			report.GetMain() != nil && p.Main.Host != h.host,
			report.GetShadow() != nil && p.Shadow.Host != h.host:
			h.server.Log.Debug("report passed over", "host", h.host, "pair", report.GetDrPair())
		default:
			h.server.Observed.SetReport(h.host, h.number, report, h.server.Clock.Now())
		}
	}
}
