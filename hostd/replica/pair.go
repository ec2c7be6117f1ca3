package replica

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// pair is one pair on this host. Locks, in the order in which they are taken: tending, gate, opening, mu.
type pair struct {
	r     *Replica
	name  string
	log   *slog.Logger // of lines about the pair
	about atomic.Pointer[telemetry.Subject]

	// tending is held while points are deleted, so that nobody who stops the pair finds points vanishing afterwards.
	tending gate
	// unfinished, guarded by tending: a pruning was stopped half-way.
	unfinished bool
	// gate guards current, draft, gone, and every write to the store that a stream makes.
	gate    gate
	current *stream              // the stream that may write, if any
	draft   *recoverystore.Draft // its draft, from BeginJob to CompletePoint
	gone    bool                 // deleted; written with opening too

	opening sync.Mutex   // held while the store is opened or closed
	written atomic.Int64 // bytes of disk data, in this life of the process

	mu       sync.Mutex
	store    *recoverystore.Store
	recorded bool            // a record is in the journal
	rec      record          // changed with gate held too
	applied  bool            // a spec was applied in this life of the process
	settled  bool            // what rec says has been done: no stream that it does not admit can write
	policy   *umbrav1.Policy // of the last spec
	failure  *umbrav1.Failure
	status   Status
	stopTend context.CancelFunc // ends the pruning that runs
	stopping int                // how many wait for it to end
}

func newPair(r *Replica, name string) *pair {
	p := &pair{r: r, name: name, tending: newGate(), gate: newGate()}
	p.about.Store(&telemetry.Subject{})
	p.log = telemetry.AboutPair(r.cfg.Log, name, func() telemetry.Subject { return *p.about.Load() })
	return p
}

func (p *pair) dir() string { return filepath.Join(p.r.cfg.StoreDir, p.name) }

// record returns the record and whether a spec was applied since the start.
func (p *pair) record() (rec record, applied bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rec, p.applied
}

// setRecord takes over a record that is in the journal.
func (p *pair) setRecord(rec record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rec, p.recorded = rec, true
	p.status.follow(rec)
	if p.about.Load().Epoch != rec.Epoch {
		p.about.Store(&telemetry.Subject{Epoch: rec.Epoch})
	}
}

// save stores the record, then takes it over. It needs the gate.
func (p *pair) save(rec record) error {
	if old, _ := p.record(); old == rec && p.isRecorded() {
		return nil
	}
	if err := journal.Save(p.r.cfg.Journal, journal.Replica, p.name, rec); err != nil {
		return fmt.Errorf("recording what is refused: %w", err)
	}
	p.setRecord(rec)
	return nil
}

func (p *pair) isRecorded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recorded
}

// settledOn says that the spec has been carried out already and changes nothing, and takes over its policy.
func (p *pair) settledOn(s Spec) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	next, err := p.rec.follow(s, !p.recorded)
	if err != nil || next != p.rec || !p.settled || p.rec.ResyncPending || p.store == nil {
		return false
	}
	p.policy = s.Policy
	p.about.Store(s.subject())
	return true
}

// settle notes whether what rec says has been done.
func (p *pair) settle(done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled = done
}

func (p *pair) retention() *umbrav1.RetentionPolicy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.policy.GetRetention()
}

// opened returns the store if it is open.
func (p *pair) opened() *recoverystore.Store {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.store
}

// openStore returns the store, opened if it is not, and opened anew if a failure stopped it.
func (p *pair) openStore(ctx context.Context) (*recoverystore.Store, error) {
	p.opening.Lock()
	defer p.opening.Unlock()
	if s := p.opened(); s != nil {
		stopped := s.Stopped()
		if stopped == nil {
			return s, nil
		}
		p.log.Warn("store stopped, and is opened anew", "error", stopped)
		if err := p.closeOpened(); err != nil {
			return nil, err
		}
	}
	if p.r.isClosed() {
		return nil, ErrClosed
	}
	if p.gone || !p.isRecorded() {
		return nil, fmt.Errorf("pair %q: %w", p.name, ErrNoPair)
	}
	options := p.r.cfg.Store
	options.Logger = p.log
	s, err := recoverystore.Open(ctx, p.dir(), options)
	if err != nil {
		return nil, fmt.Errorf("opening the store of pair %s: %w", p.name, err)
	}
	p.mu.Lock()
	p.store = s
	p.mu.Unlock()
	return s, nil
}

// closeStore closes the store if it is open, and waits for what runs in it.
func (p *pair) closeStore() error {
	p.opening.Lock()
	defer p.opening.Unlock()
	return p.closeOpened()
}

// closeOpened needs opening.
func (p *pair) closeOpened() error {
	p.mu.Lock()
	s := p.store
	p.store = nil
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("closing the store of pair %s: %w", p.name, err)
	}
	return nil
}

// cut ends the right of the current stream to write, and the stream. It needs the gate. What the stream wrote since its
// last confirmed coverage is dropped.
func (p *pair) cut(reason error) {
	if p.current != nil {
		p.current.end(reason)
		p.current = nil
		p.setReceiving(false)
	}
	if p.draft == nil {
		return
	}
	if err := p.draft.Abandon(); err != nil {
		p.log.Warn("draft could not be abandoned", "error", err)
	}
	p.draft = nil
}
