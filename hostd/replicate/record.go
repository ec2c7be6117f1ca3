package replicate

import (
	"github.com/umbra-dr/umbra/hostd/journal"
)

// record is what must be remembered of a pair over a crash: what was done to the server, so that it can be undone, and
// which checkpoints still mean something.
type record struct {
	// UID is the pair's; empty if it was not known yet.
	UID string `json:"uid,omitempty"`

	Server     string `json:"server"`
	ServerUUID string `json:"server_uuid"`

	// AutostartTaken says that Umbra has taken the server off autostart; AutostartWas whether it was on before.
	AutostartTaken bool `json:"autostart_taken,omitempty"`
	AutostartWas   bool `json:"autostart_was,omitempty"`
	// AutostartBoot is the boot of the host for which the autostart was last stood in for.
	AutostartBoot string `json:"autostart_boot,omitempty"`

	// ShutDown and LinksDown say what fencing did, or was about to do, to the server.
	ShutDown  bool `json:"shut_down,omitempty"`
	LinksDown bool `json:"links_down,omitempty"`
	// WentOff says that the server was off after ShutDown. A running one without it may have been asked to shut down, and
	// may still do so.
	WentOff bool `json:"went_off,omitempty"`

	// CheckpointsKept says that checkpoints of ResyncGeneration may be used; those of a lower generation were dropped.
	CheckpointsKept  bool   `json:"checkpoints_kept,omitempty"`
	ResyncGeneration uint64 `json:"resync_generation,omitempty"`
	// PointStored says that there has been a recovery point in ResyncGeneration.
	PointStored bool `json:"point_stored,omitempty"`
}

// ledger is the record of one pair with its place in the journal. Only the pair's worker uses it.
type ledger struct {
	journal *journal.Journal
	pair    string
	record  record
}

func openLedger(j *journal.Journal, pair string) (*ledger, error) {
	rec, _, err := journal.Load[record](j, journal.Replicate, pair)
	if err != nil {
		return nil, err
	}
	return &ledger{journal: j, pair: pair, record: rec}, nil
}

// update changes the record. It is durable when update returns nil; else it is as before.
func (l *ledger) update(change func(*record)) error {
	next := l.record
	change(&next)
	if next == l.record {
		return nil
	}
	if err := journal.Save(l.journal, journal.Replicate, l.pair, next); err != nil {
		return err
	}
	l.record = next
	return nil
}

func (l *ledger) remove() error {
	if err := journal.Delete(l.journal, journal.Replicate, l.pair); err != nil {
		return err
	}
	l.record = record{}
	return nil
}
