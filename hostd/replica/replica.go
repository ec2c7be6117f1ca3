// Package replica is the data side of the shadow role: it receives replication streams into the pairs' recovery-point stores,
// confirms what is durable, and looks after the points. It promises:
//
//   - After Apply has returned for a spec that does not accept, no byte of that epoch or of a lower one reaches the store, ever
//     again, restarts included: the refusal is in the journal before the running stream is cut.
//   - A point, or a coverage, is confirmed to the main side only when it is durable.
//   - A stream that breaks, is damaged or is refused leaves the points, and the coverage that was confirmed last.
//   - Points are deleted by the schedule of the pair's policy only, and only while the pair is being replicated. When space runs
//     out, replication stops with a reason; no point is dropped for it.
//
// How writes are fenced: a pair has a gate. Every write to its store is done with the gate held, after a look whether the
// stream is still the current one; whoever ends a stream's right to write takes the gate first. See gate.go and stream.go.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// Defaults of Config.
const (
	DefaultPruneEvery = time.Minute
	DefaultScrubEvery = 10 * time.Second
	DefaultScrubBytes = 32 << 20
)

// Config is what a Replica is made from.
type Config struct {
	// StoreDir holds one folder for each pair: its recovery-point store.
	StoreDir string
	// Journal keeps what was refused. Records of kind Replica.
	Journal *journal.Journal
	// Clock paces the beats, and stamps failures.
	Clock clock.Clock
	// Log gets state changes.
	Log *slog.Logger
	// Tracer gets a span for each point that is stored. Default: none.
	Tracer trace.Tracer
	// Changed is called when a pair's Status changed. It must not block, and may call Status. Unset: nobody is told.
	Changed func(pair string)
	// Store is how stores are opened: their owner, the space kept free. Clock and Log are filled in.
	Store recoverystore.Options
	// PruneEvery is the beat of retention, beside that after each point. 0 means DefaultPruneEvery.
	PruneEvery time.Duration
	// ScrubEvery is the beat of scrub; at each one pair's store is read for ScrubBytes. 0 means the defaults.
	ScrubEvery time.Duration
	ScrubBytes int64
}

// Errors that callers decide on.
var (
	// ErrStale: the spec is older than one that was applied. It had no effect.
	ErrStale = errors.New("the spec is older than one applied before")
	// ErrRefusedEpoch: the spec asks to accept an epoch that was refused for good. It had no effect.
	ErrRefusedEpoch = errors.New("the epoch has been refused for good")
	// ErrOtherPair: what is here is of an earlier pair of the same id, which has to be deleted first. The spec had no effect.
	ErrOtherPair = errors.New("the store is of an earlier pair of this id")
	// ErrNoPair: no spec was ever applied for the pair, or it was deleted.
	ErrNoPair = errors.New("no such pair on this host")
	// ErrClosed: Run has ended.
	ErrClosed = errors.New("the replica is closed")
)

// Replica is the shadow role's data side for all pairs of a host. Safe for concurrent use.
type Replica struct {
	cfg Config
	due duePairs // to be pruned before the next beat

	mu     sync.Mutex
	closed bool
	pairs  map[string]*pair
}

// New makes a Replica that knows the pairs in the journal. Streams are accepted from a pair's first Apply on.
func New(cfg Config) (*Replica, error) {
	if cfg.PruneEvery <= 0 {
		cfg.PruneEvery = DefaultPruneEvery
	}
	if cfg.ScrubEvery <= 0 {
		cfg.ScrubEvery = DefaultScrubEvery
	}
	if cfg.ScrubBytes <= 0 {
		cfg.ScrubBytes = DefaultScrubBytes
	}
	if cfg.Tracer == nil {
		cfg.Tracer = tracing.Off()
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string) {}
	}
	cfg.Store.Now = cfg.Clock.Now
	records, err := journal.All[record](cfg.Journal, journal.Replica)
	if err != nil {
		return nil, fmt.Errorf("reading what was promised before: %w", err)
	}
	r := &Replica{cfg: cfg, pairs: map[string]*pair{}, due: newDuePairs()}
	for name, rec := range records {
		p := newPair(r, name)
		p.setRecord(rec)
		r.pairs[name] = p
	}
	return r, nil
}

// Store returns the pair's store. It is opened once, shared by all callers and stays open until Delete or the end of Run. Errors:
// ErrNoPair, ErrClosed, and what recoverystore.Open returns.
func (r *Replica) Store(name string) (*recoverystore.Store, error) {
	p, err := r.known(name)
	if err != nil {
		return nil, err
	}
	return p.openStore(context.Background())
}

// known returns a pair that has a record.
func (r *Replica) known(name string) (*pair, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	p := r.pairs[name]
	if p == nil {
		return nil, fmt.Errorf("pair %q: %w", name, ErrNoPair)
	}
	return p, nil
}

// ensure returns the pair, made if needed.
func (r *Replica) ensure(name string) (*pair, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, ErrClosed
	}
	p := r.pairs[name]
	if p == nil {
		p = newPair(r, name)
		r.pairs[name] = p
	}
	return p, nil
}

// forget removes the pair, if it still is this one.
func (r *Replica) forget(p *pair) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pairs[p.name] == p {
		delete(r.pairs, p.name)
	}
}

func (r *Replica) all() []*pair {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*pair, 0, len(r.pairs))
	for _, p := range r.pairs {
		out = append(out, p)
	}
	return out
}
