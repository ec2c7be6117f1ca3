// Package observed holds what the hosts last reported: their inventories, whether they are connected and to which control
// plane, and the figures of each pair. It lives in memory only. What hosts report to this process comes from their
// sessions, what they report to others through package peer, and who has which session from package registry. Nothing is
// decided from it that a restart could make wrong. The written truth about pairs is in the store.
package observed

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/feed"
)

// Host is what is known of a host.
type Host struct {
	ID string
	// Inventory is what it last sent, or nil. It is not to be changed.
	Inventory *umbrav1.Host
	Connected bool
	// Session orders the host's sessions, whichever control plane they are with: 0 before the first that is known, and
	// higher with each.
	Session uint64
	// Holder is the id of the control plane that has, or had, that session.
	Holder string
	// Left: the session ended while the control plane that had it was there. A host that has lost its control plane is
	// expected to dial another one.
	Left bool
	// ChangeTime is when Connected last changed, ReportTime when the host last sent anything.
	ChangeTime, ReportTime time.Time
}

// Main is the last report of a pair's main host. The report is not to be changed.
type Main struct {
	Report *umbrav1.MainReport
	// Held is what the host holds, while it was told to hold; otherwise nil.
	Held *umbrav1.Held
	// UID is the pair's: one that was made again under its id has another. Empty if the host did not say.
	UID string
	// Generation and Epoch are those of the assignment that the report is about.
	Generation, Epoch uint64
	Time              time.Time
	// Host reported it in its session of that number.
	Host    string
	Session uint64
}

// Of tells whether the report can be about the pair of that uid.
func (m Main) Of(uid string) bool { return m.UID == "" || m.UID == uid }

// after tells whether it was reported in a later session of the host than that.
func (m Main) after(host string, session uint64) bool { return m.Host == host && m.Session > session }

// Shadow is the last report of a pair's shadow host. The report is not to be changed.
type Shadow struct {
	Report *umbrav1.ShadowReport
	// Held is what the host holds, while it was told to hold; otherwise nil.
	Held *umbrav1.Held
	// UID is the pair's: one that was made again under its id has another. Empty if the host did not say.
	UID string
	// Generation and Epoch are those of the assignment that the report is about.
	Generation, Epoch uint64
	Time              time.Time
	// Host reported it in its session of that number.
	Host    string
	Session uint64
}

// Of tells whether the report can be about the pair of that uid.
func (s Shadow) Of(uid string) bool { return s.UID == "" || s.UID == uid }

// after tells whether it was reported in a later session of the host than that.
func (s Shadow) after(host string, session uint64) bool { return s.Host == host && s.Session > session }

// Hosts is safe for concurrent use. Make it with New.
type Hosts struct {
	mu          sync.RWMutex
	hosts       map[string]Host
	mains       map[string]Main
	shadows     map[string]Shadow
	pairs       feed.Feed[string]
	changed     feed.Feed[string]
	inventories feed.Feed[string]
}

// New knows of no host.
func New() *Hosts {
	return &Hosts{hosts: map[string]Host{}, mains: map[string]Main{}, shadows: map[string]Shadow{}}
}

// Inventories tells which hosts, by id, have sent an inventory.
func (h *Hosts) Inventories() *feed.Feed[string] { return &h.inventories }

// Pairs tells which pairs, by id, have a newer report.
func (h *Hosts) Pairs() *feed.Feed[string] { return &h.pairs }

// Connections tells which hosts, by id, have connected, disconnected, or are reached at another data address.
func (h *Hosts) Connections() *feed.Feed[string] { return &h.changed }

// Know makes a host known that has not been heard of by this process.
func (h *Hosts) Know(id string, inventory *umbrav1.Host, reported, now time.Time) {
	h.mu.Lock()
	_, known := h.hosts[id]
	if !known {
		h.hosts[id] = Host{ID: id, Inventory: inventory, ReportTime: reported, ChangeTime: now}
	}
	h.mu.Unlock()
	if !known {
		h.changed.Publish(id)
	}
}

// Connect notes that a session with that control plane began at that time. What was reported in an earlier one is the
// past from then on. A session that is not newer than the one that is known is passed over.
func (h *Hosts) Connect(id string, session uint64, holder string, began time.Time) {
	h.mu.Lock()
	host := h.hosts[id]
	newer := session > host.Session
	if newer {
		host.ID, host.Session, host.Holder, host.Connected, host.Left = id, session, holder, true, false
		host.ChangeTime, host.ReportTime = began, began
		h.hosts[id] = host
	}
	h.mu.Unlock()
	if newer {
		h.changed.Publish(id)
	}
}

// Disconnect notes that a session ended; left tells whether the control plane that had it remains. When a newer session
// is known nothing happens.
func (h *Hosts) Disconnect(id string, session uint64, left bool, now time.Time) {
	h.mu.Lock()
	host := h.hosts[id]
	ends := session == host.Session && host.Connected
	if ends {
		host.Connected, host.Left, host.ChangeTime = false, left, now
		h.hosts[id] = host
	}
	h.mu.Unlock()
	if ends {
		h.changed.Publish(id)
	}
}

// SetInventory notes what a host has, as it told in its session of that number. What it told in an earlier session than
// the one that is known is passed over. The inventory is the caller's no more.
func (h *Hosts) SetInventory(id string, session uint64, inventory *umbrav1.Host, now time.Time) {
	h.mu.Lock()
	host := h.hosts[id]
	if session < host.Session {
		h.mu.Unlock()
		return
	}
	moved := host.Inventory.GetDataAddress() != inventory.GetDataAddress()
	host.ID, host.Inventory, host.ReportTime = id, inventory, now
	h.hosts[id] = host
	h.mu.Unlock()
	h.inventories.Publish(id)
	if moved {
		h.changed.Publish(id)
	}
}

// SetReport notes a report that came in the host's session of that number. One of an earlier session is passed over,
// since it may have been overtaken; one of a later session, which another control plane has heard of earlier, is taken.
// The report is the caller's no more.
func (h *Hosts) SetReport(host string, session uint64, report *umbrav1.AssignmentReport, now time.Time) {
	if h.keep(host, session, report, now) {
		h.pairs.Publish(report.GetDrPair())
	}
}

func (h *Hosts) keep(host string, session uint64, report *umbrav1.AssignmentReport, now time.Time) bool {
	pair := report.GetDrPair()
	h.mu.Lock()
	defer h.mu.Unlock()
	known := h.hosts[host]
	if session < known.Session || report.GetMain() != nil && h.mains[pair].after(host, session) || report.GetShadow() != nil && h.shadows[pair].after(host, session) {
		return false
	}
	known.ID, known.ReportTime = host, now
	h.hosts[host] = known
	if main := report.GetMain(); main != nil {
		h.mains[pair] = Main{
			Report: main, Held: report.GetHeld(), UID: report.GetDrPairUid(), Generation: report.GetGeneration(), Epoch: report.GetEpoch(), Time: now, Host: host, Session: session,
		}
	}
	if shadow := report.GetShadow(); shadow != nil {
		h.shadows[pair] = Shadow{
			Report: shadow, Held: report.GetHeld(), UID: report.GetDrPairUid(), Generation: report.GetGeneration(), Epoch: report.GetEpoch(), Time: now, Host: host, Session: session,
		}
	}
	return true
}

// Forget drops the reports of a pair that is gone.
func (h *Hosts) Forget(pair string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.mains, pair)
	delete(h.shadows, pair)
}

// Main is the last report of the pair's main host.
func (h *Hosts) Main(pair string) (Main, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	main, ok := h.mains[pair]
	return main, ok
}

// Shadow is the last report of the pair's shadow host.
func (h *Hosts) Shadow(pair string) (Shadow, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	shadow, ok := h.shadows[pair]
	return shadow, ok
}

// Reported are the ids of the pairs that there is a report of, in no order.
func (h *Hosts) Reported() []string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	pairs := slices.Collect(maps.Keys(h.mains))
	for pair := range h.shadows {
		if _, both := h.mains[pair]; !both {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// Host is what is known of one host.
func (h *Hosts) Host(id string) (Host, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	host, ok := h.hosts[id]
	return host, ok
}

// Connected tells whether the host has a session now.
func (h *Hosts) Connected(id string) bool {
	host, _ := h.Host(id)
	return host.Connected
}

// List is every known host, in the order of ids.
func (h *Hosts) List() []Host {
	h.mu.RLock()
	defer h.mu.RUnlock()
	list := make([]Host, 0, len(h.hosts))
	for _, host := range h.hosts {
		list = append(list, host)
	}
	slices.SortFunc(list, func(a, b Host) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
