package replicate

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/transport"
)

const (
	testPair = "p1"
	// patience is how long a test waits for what should happen soon, before it fails.
	patience = time.Minute
)

// rig is a Replicator between a testSource and a testShadow.
type rig struct {
	t       *testing.T
	source  *testSource
	shadow  *testShadow
	journal *journal.Journal
	cfg     Config
	reports chan *umbrav1.AssignmentReport

	generation uint64
	resync     uint64 // of the assignments to come
	replicator *Replicator
	stop       func()
	last       *umbrav1.AssignmentReport
}

func build(t *testing.T, sizes ...int64) *rig {
	j, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	runDir, err := os.MkdirTemp("", "umbra") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runDir) })
	r := &rig{
		t: t, source: startSource(t, sizes...), shadow: startShadow(t), journal: j,
		reports: make(chan *umbrav1.AssignmentReport, 10000),
	}
	r.cfg = Config{
		RunDir: runDir, Source: r.source, Journal: j, BootID: "boot-1", Clock: fast(), Log: slog.New(slog.DiscardHandler),
		Dial: func(string, string) (*transport.Conn, error) {
			return transport.Dialer{Credentials: insecure.NewCredentials()}.Dial(r.shadow.addr)
		},
		Report: func(a *umbrav1.AssignmentReport) {
			select {
			case r.reports <- a:
			default:
				t.Error("more reports than the test takes")
			}
		},
	}
	if testing.Verbose() {
		r.cfg.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return r
}

// start begins a life of the daemon; the test's end, or kill, ends it.
func (r *rig) start() {
	r.t.Helper()
	replicator, err := New(r.cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = replicator.Run(ctx) // it ends with its context
	}()
	r.replicator = replicator
	r.stop = sync.OnceFunc(func() { cancel(); <-done })
	r.t.Cleanup(r.stop)
}

// assignment is one of mode REPLICATE with the shortest interval; change makes it another.
func (r *rig) assignment(change func(*umbrav1.Assignment, *umbrav1.MainAssignment)) *umbrav1.Assignment {
	r.generation++
	main := &umbrav1.MainAssignment{
		Mode: umbrav1.MainMode_MAIN_MODE_REPLICATE, Server: testServer, ServerUuid: testUUID, ShadowHost: "h2",
		ShadowDataAddress: r.shadow.addr, Policy: &umbrav1.Policy{Interval: durationpb.New(time.Second)},
		ResyncGeneration: r.resync,
	}
	a := &umbrav1.Assignment{DrPair: testPair, Generation: r.generation, Epoch: 1, Role: &umbrav1.Assignment_Main{Main: main}}
	if change != nil {
		change(a, main)
	}
	return proto.CloneOf(a)
}

func (r *rig) assign(change func(*umbrav1.Assignment, *umbrav1.MainAssignment)) uint64 {
	a := r.assignment(change)
	r.replicator.Assign([]*umbrav1.Assignment{a})
	return a.GetGeneration()
}

func mode(m umbrav1.MainMode) func(*umbrav1.Assignment, *umbrav1.MainAssignment) {
	return func(_ *umbrav1.Assignment, main *umbrav1.MainAssignment) { main.Mode = m }
}

// until waits for a report that satisfies want.
func (r *rig) until(what string, want func(*umbrav1.AssignmentReport, *umbrav1.MainReport) bool) *umbrav1.MainReport {
	r.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case a := <-r.reports:
			r.last = a
			if want(a, a.GetMain()) {
				return a.GetMain()
			}
		case <-timeout:
			r.t.Fatalf("no report of: %s; the last one: %v", what, r.last)
		}
	}
}

func (r *rig) untilPhase(p umbrav1.MainPhase, generation uint64) *umbrav1.MainReport {
	r.t.Helper()
	return r.until(p.String(), func(a *umbrav1.AssignmentReport, m *umbrav1.MainReport) bool {
		return m.GetPhase() == p && a.GetGeneration() >= generation
	})
}

// nextPoint waits for a point whose job began after the call, and checks it.
func (r *rig) nextPoint() string {
	r.t.Helper()
	var begun int
	r.source.locked(func() { begun = len(r.source.views) })
	timeout := time.After(patience)
	for {
		select {
		case r.last = <-r.reports:
		case c := <-r.shadow.stored:
			mustEqual(r.t, r.shadow, r.source)
			var jobs []string
			r.source.locked(func() { jobs = keysOf(r.source.views) })
			for i, name := range jobs {
				if name == c && i >= begun {
					return c
				}
			}
		case <-timeout:
			r.t.Fatalf("no point; the last report: %v", r.last)
		}
	}
}
