package replicate

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// realShadow is the shadow role of a host as it is: hostd/replica, its journal and its store.
type realShadow struct {
	rig     *rig
	dir     string
	journal *journal.Journal
	addr    atomic.Value // string
	changed chan struct{}
	replica *replica.Replica
	stop    func()
	applied uint64
}

// withRealShadow makes the rig replicate to a realShadow.
func withRealShadow(r *rig) *realShadow {
	j, err := journal.Open(r.t.TempDir())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = j.Close() })
	s := &realShadow{rig: r, dir: r.t.TempDir(), journal: j, changed: make(chan struct{}, 1)}
	s.start()
	r.t.Cleanup(func() { s.stop() })
	r.cfg.Dial = func(string, string) (*transport.Conn, error) {
		return transport.Dialer{
			Credentials: insecure.NewCredentials(),
			DialContext: func(ctx context.Context, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "tcp", s.addr.Load().(string))
			},
		}.Dial("shadow")
	}
	return s
}

// start begins a life of the shadow's daemon.
func (s *realShadow) start() {
	rep, err := replica.New(replica.Config{
		StoreDir: s.dir, Journal: s.journal, Clock: clock.System, Log: s.rig.cfg.Log,
		Changed: func(string) { signal(s.changed) },
	})
	if err != nil {
		s.rig.t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.rig.t.Fatal(err)
	}
	server := transport.NewServer(insecure.NewCredentials(), rep.Handle(nil))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) }) // ends with Stop
	running.Go(func() { _ = rep.Run(ctx) })           // ends with its context
	s.replica = rep
	s.addr.Store(listener.Addr().String())
	s.stop = sync.OnceFunc(func() {
		server.Stop()
		cancel()
		running.Wait()
	})
	s.apply()
}

// apply tells the replica what the rig's assignments say.
func (s *realShadow) apply() {
	s.applied++
	err := s.replica.Apply(context.Background(), replica.Spec{
		Pair: testPair, Generation: s.applied, Epoch: 1, Accept: true, MainHost: "h1", ResyncGeneration: s.rig.resync,
	})
	if err != nil {
		s.rig.t.Fatal(err)
	}
}

// nextPoint waits for a point whose job began after the call, and compares it, as QEMU reads it, with what the job saw.
func (s *realShadow) nextPoint() {
	r := s.rig
	r.t.Helper()
	var begun int
	r.source.locked(func() { begun = len(r.source.views) })
	timeout := time.After(2 * patience)
	for {
		select {
		case r.last = <-r.reports:
			continue
		case <-s.changed:
		case <-timeout:
			r.t.Fatalf("no point; the last report: %v", r.last)
		}
		store, err := s.replica.Store(testPair)
		if err != nil {
			r.t.Fatal(err)
		}
		points := store.Points()
		if len(points) == 0 {
			continue
		}
		newest := points[len(points)-1]
		var jobs []string
		r.source.locked(func() { jobs = keysOf(r.source.views) })
		for _, name := range jobs[begun:] {
			if name == newest.Checkpoint {
				s.compare(store, newest)
				return
			}
		}
	}
}

func (s *realShadow) compare(store *recoverystore.Store, point recoverystore.Point) {
	t := s.rig.t
	t.Helper()
	view, err := store.OpenView(t.Context(), point.ID, recoverystore.ViewOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range s.rig.source.view(point.Checkpoint) {
		raw := filepath.Join(t.TempDir(), "raw")
		out, err := exec.Command("qemu-img", "convert", "-O", "raw", view.Disks[i].QEMUImage(), raw).CombinedOutput()
		if err != nil {
			t.Fatalf("reading the view: %v: %s", err, out)
		}
		got, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
			t.Fatalf("point %s of %s differs from disk %s", point.ID, point.Checkpoint, view.Disks[i].Name)
		}
	}
	if err := store.CloseView(t.Context(), point.ID); err != nil {
		t.Fatal(err)
	}
}

// realFaults are faults with a realShadow.
var realFaults = map[string]func(s *realShadow){
	"nothing":                  func(*realShadow) {},
	"the main daemon restarts": func(s *realShadow) { s.rig.restart() },
	"the bitmaps break":        func(s *realShadow) { s.rig.source.locked(func() { s.rig.source.lost = true }) },
	"the backup job dies":      func(s *realShadow) { s.rig.source.killServer() },
	"the shadow daemon restarts": func(s *realShadow) {
		s.stop()
		s.start()
	},
	"replication is restarted": func(s *realShadow) {
		s.rig.resync++
		s.rig.assign(nil)
		s.apply()
	},
}

func TestWhatQEMUReadsFromTheStoreIsWhatTheDisksHeldWhateverFails(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			r := build(t, 24*mib+512, 3*mib)
			s := withRealShadow(r)
			r.source.write(change{0, 0, 18 * mib, 1})
			r.start()
			r.assign(nil)
			s.nextPoint()
			names := keysOf(realFaults)
			for range 10 {
				name := names[rng.IntN(len(names))]
				t.Log(name)
				r.source.write(r.randomChanges(rng)...)
				realFaults[name](s)
				s.nextPoint()
			}
		})
	}
}
