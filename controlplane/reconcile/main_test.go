package reconcile_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/controlplane/drpair"
	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/reconcile"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const grace = 30 * time.Second

// memory is a store in memory that is its own cache, and counts what is written. before is called before each commit.
type memory struct {
	feed   feed.Feed[string]
	before func(store.Entry)

	mu         sync.Mutex
	revision   int64
	entries    map[string]store.Entry
	operations map[string]drpair.Operation
	requests   map[store.RequestKey]store.RequestRecord
	sessions   map[string]uint64 // by host
	ever       uint64            // how many sessions there were
}

func newMemory() *memory {
	return &memory{
		before: func(store.Entry) {}, entries: map[string]store.Entry{}, operations: map[string]drpair.Operation{},
		requests: map[store.RequestKey]store.RequestRecord{}, sessions: map[string]uint64{},
	}
}

func (m *memory) Feed() *feed.Feed[string] { return &m.feed }

func (m *memory) Get(id string) (store.Entry, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	entry, ok := m.entries[id]
	return entry, ok
}

func (m *memory) List() []store.Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.entries), func(x, y store.Entry) int {
		return cmp.Compare(x.Record.Pair.ID, y.Record.Pair.ID)
	})
}

func (m *memory) ByHost(host string) []store.Entry {
	return slices.DeleteFunc(m.List(), func(entry store.Entry) bool {
		return entry.Record.Pair.Main.Host != host && entry.Record.Pair.Shadow.Host != host
	})
}

func (m *memory) writes() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

func (m *memory) Pair(_ context.Context, id string) (store.Entry, error) {
	if entry, ok := m.Get(id); ok {
		return entry, nil
	}
	return store.Entry{}, store.ErrNotFound
}

func (m *memory) Create(_ context.Context, rec drpair.Record, key store.RequestKey) (store.Entry, error) {
	defer m.feed.Publish(rec.Pair.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.entries[rec.Pair.ID]; ok {
		return store.Entry{}, &store.ExistsError{Pair: rec.Pair.ID}
	}
	m.revision++
	m.entries[rec.Pair.ID] = store.Entry{Record: rec, Revision: m.revision}
	return m.entries[rec.Pair.ID], nil
}

func (m *memory) Commit(_ context.Context, old store.Entry, change drpair.Change, key store.RequestKey, sessions ...store.Session) (store.Entry, error) {
	id := old.Record.Pair.ID
	m.before(old)
	stored := false
	defer func() {
		if stored {
			m.feed.Publish(id)
		}
	}()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries[id].Revision != old.Revision {
		return store.Entry{}, store.ErrConflict
	}
	for _, session := range sessions {
		if m.sessions[session.Host] != session.Number {
			return store.Entry{}, store.ErrSession
		}
	}
	if _, used := m.requests[key]; used && key.ID != "" {
		return store.Entry{}, store.ErrConflict
	}
	stored = true
	m.revision++
	record := store.RequestRecord{Pair: id}
	for _, operation := range []*drpair.Operation{change.Superseded, change.Operation} {
		if operation != nil {
			m.operations[operation.ID] = *operation
			record.Operation = operation.ID
		}
	}
	if key.ID != "" {
		m.requests[key] = record
	}
	if change.Remove {
		delete(m.entries, id)
		return store.Entry{Record: change.Record}, nil
	}
	m.entries[id] = store.Entry{Record: change.Record, Revision: m.revision}
	return m.entries[id], nil
}

// session stores another session of a host, or its end, and returns the number.
func (m *memory) session(host string, begins bool) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !begins {
		delete(m.sessions, host)
		return 0
	}
	m.ever++
	m.sessions[host] = m.ever
	return m.ever
}

func (m *memory) Request(_ context.Context, key store.RequestKey) (store.RequestRecord, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	record, ok := m.requests[key]
	return record, ok, nil
}

func (m *memory) Operation(_ context.Context, id string) (drpair.Operation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	operation, ok := m.operations[id]
	if !ok {
		return drpair.Operation{}, store.ErrNotFound
	}
	return operation, nil
}

// bench is an engine with what a test needs around it.
type bench struct {
	t        *testing.T
	engine   *reconcile.Engine
	hosts    *observed.Hosts
	registry *registry.Registry // nil where the store is memory
	stop     func()
}

func newBench(t *testing.T, s reconcile.Store, records reconcile.Records) *bench {
	b := &bench{t: t, hosts: observed.New()}
	self := ""
	if onEtcd, is := s.(*store.Store); is {
		b.registry = registry.New(registry.Config{
			Store: onEtcd, Observed: b.hosts, Clock: clock.System, Log: slog.New(slog.DiscardHandler), TTL: time.Minute,
		})
		self = b.registry.Self()
	}
	b.engine = reconcile.New(reconcile.Config{
		Store: s, Records: records, Observed: b.hosts, Self: self, Clock: clock.System,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), UnreachableAfter: grace,
	})
	return b
}

// run runs the engine until stop.
func (b *bench) run(t *testing.T) *bench {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.engine.Run(ctx) }()
	var work sync.WaitGroup
	if b.registry != nil {
		work.Go(func() { _ = b.registry.Run(ctx) })
		<-b.registry.Ready()
	}
	b.stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(b.stop)
	return b
}

// connect begins a session of a host and returns its number.
func (b *bench) connect(host string) uint64 {
	b.t.Helper()
	if b.registry == nil {
		number := b.engine.Store.(interface {
			session(host string, begins bool) uint64
		}).session(host, true)
		b.hosts.Connect(host, number, "", time.Now())
		return number
	}
	number, err := b.registry.Enter(b.t.Context(), host, func(error) {})
	if err != nil {
		b.t.Fatal(err)
	}
	return number
}

// leave ends the session of a host on a store in memory.
func (b *bench) leave(m *memory, host string) {
	m.session(host, false)
	known, _ := b.hosts.Host(host)
	b.hosts.Disconnect(host, known.Session, true, time.Now())
}

func newRecord(id string) drpair.Record {
	return drpair.New(id, "uid-"+id, drpair.Main{Host: "a", Server: id, UUID: "u-" + id}, drpair.Shadow{Host: "b"}, drpair.DefaultPolicy(), time.Now())
}

// create makes a pair and waits until the engine can see it; sessions take no report of one that cannot be seen.
func (b *bench) create(t *testing.T, id string) drpair.Record {
	t.Helper()
	rec, err := b.engine.Create(t.Context(), newRecord(id), store.RequestKey{})
	if err != nil {
		t.Fatal(err)
	}
	until(t, b.engine.Records, id, func(_ drpair.Record, ok bool) bool { return ok })
	return rec
}

func (b *bench) main(session, epoch uint64, phase umbrav1.MainPhase) {
	b.hosts.SetReport("a", session, &umbrav1.AssignmentReport{
		DrPair: "p", Epoch: epoch,
		Role: &umbrav1.AssignmentReport_Main{Main: &umbrav1.MainReport{Phase: phase, ResyncGeneration: 1}},
	}, time.Now())
}

func (b *bench) shadow(session, epoch uint64, report *umbrav1.ShadowReport) {
	report.RecoveryPointCount = 3
	b.hosts.SetReport("b", session, &umbrav1.AssignmentReport{
		DrPair: "p", Epoch: epoch, Role: &umbrav1.AssignmentReport_Shadow{Shadow: report},
	}, time.Now())
}

func failover(id string) drpair.Event {
	return drpair.Failover{Request: drpair.Request{OperationID: id}, Point: "rp-1"}
}

func commit(id string) drpair.Event {
	return drpair.CommitFailover{Request: drpair.Request{OperationID: id}}
}

func key(id string) store.RequestKey {
	return store.RequestKey{Method: "/m", Caller: "c", ID: id}
}

func (b *bench) request(t *testing.T, event func(string) drpair.Event) drpair.Record {
	t.Helper()
	rec, err := b.engine.Request(t.Context(), reconcile.Request{Pair: "p", Event: event})
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// until waits for the pair to be as is asked.
func until(t *testing.T, records reconcile.Records, id string, is func(rec drpair.Record, ok bool) bool) drpair.Record {
	t.Helper()
	patience := 20 * time.Minute // of a bubble's time
	if _, onEtcd := records.(*store.Cache); onEtcd {
		patience = 20 * time.Second
	}
	changes := records.Feed().Subscribe()
	defer changes.Close()
	for {
		entry, ok := records.Get(id)
		if is(entry.Record, ok) {
			return entry.Record
		}
		select {
		case <-changes.C():
		case <-time.After(patience):
			t.Fatalf("pair %s stays %s", id, fmt.Sprintf("%+v", entry.Record.Pair))
		}
	}
}

func inState(state drpair.State) func(drpair.Record, bool) bool {
	return func(rec drpair.Record, ok bool) bool { return ok && rec.Pair.State == state }
}
