// Package observed holds what the hosts last reported: their inventories, whether they are connected, and the figures
// of each pair. It lives in memory only and is filled anew by the sessions; nothing is decided from it that a
// restart of the control plane could make wrong. The written truth about pairs is in the store.
package observed

import (
	"cmp"
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
	// Session numbers the host's sessions with this process: 0 before the first, and higher with each.
	Session uint64
	// ChangeTime is when Connected last changed, ReportTime when the host last sent anything.
	ChangeTime, ReportTime time.Time
}

// Main is the last report of a pair's main host. The report is not to be changed.
type Main struct {
	Report *umbrav1.MainReport
	// Generation and Epoch are those of the assignment that the report is about.
	Generation, Epoch uint64
	Time              time.Time
	// Host reported it in its session of that number.
	Host    string
	Session uint64
}

// Shadow is the last report of a pair's shadow host. The report is not to be changed.
type Shadow struct {
	Report *umbrav1.ShadowReport
	// Generation and Epoch are those of the assignment that the report is about.
	Generation, Epoch uint64
	Time              time.Time
	// Host reported it in its session of that number.
	Host    string
	Session uint64
}

// Hosts is safe for concurrent use. Make it with New.
type Hosts struct {
	mu      sync.RWMutex
	hosts   map[string]Host
	mains   map[string]Main
	shadows map[string]Shadow
	pairs   feed.Feed[string]
	changed feed.Feed[string]
}

// New knows of no host.
func New() *Hosts {
	return &Hosts{hosts: map[string]Host{}, mains: map[string]Main{}, shadows: map[string]Shadow{}}
}

// Pairs tells which pairs, by id, have a newer report.
func (h *Hosts) Pairs() *feed.Feed[string] { return &h.pairs }

// Connections tells which hosts, by id, have connected, disconnected, or are reached at another data address.
func (h *Hosts) Connections() *feed.Feed[string] { return &h.changed }

// SetConnected notes that a session began or ended, and returns the number of the host's newest session. What was
// reported in an earlier one is the past from then on.
func (h *Hosts) SetConnected(id string, connected bool, now time.Time) (session uint64) {
	h.mu.Lock()
	host := h.hosts[id]
	host.ID, host.Connected, host.ChangeTime = id, connected, now
	if connected {
		host.ReportTime = now
		host.Session++
	}
	h.hosts[id] = host
	h.mu.Unlock()
	h.changed.Publish(id)
	return host.Session
}

// SetInventory notes what a host has. The inventory is the caller's no more.
func (h *Hosts) SetInventory(id string, inventory *umbrav1.Host, now time.Time) {
	h.mu.Lock()
	host := h.hosts[id]
	moved := host.Inventory.GetDataAddress() != inventory.GetDataAddress()
	host.ID, host.Inventory, host.ReportTime = id, inventory, now
	h.hosts[id] = host
	h.mu.Unlock()
	if moved {
		h.changed.Publish(id)
	}
}

// SetReport notes a report that came in the host's session of that number. One of an earlier session is passed over,
// since it may have been overtaken. The report is the caller's no more.
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
	if session != known.Session {
		return false
	}
	known.ID, known.ReportTime = host, now
	h.hosts[host] = known
	if main := report.GetMain(); main != nil {
		h.mains[pair] = Main{
			Report: main, Generation: report.GetGeneration(), Epoch: report.GetEpoch(), Time: now, Host: host, Session: session,
		}
	}
	if shadow := report.GetShadow(); shadow != nil {
		h.shadows[pair] = Shadow{
			Report: shadow, Generation: report.GetGeneration(), Epoch: report.GetEpoch(), Time: now, Host: host, Session: session,
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
