package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	pair       = "web-1"
	serverName = "web"
	serverUUID = "8b1f6f4e-5a57-4c57-9a3c-1f9d6a2b7c01"
	diskBytes  = 3 * recoverystore.ClusterSize
	waitMax    = 6 * time.Hour // of the bubble's time
)

const (
	modeReceive = umbrav1.ShadowMode_SHADOW_MODE_RECEIVE
	modeStop    = umbrav1.ShadowMode_SHADOW_MODE_STOP
	modeRun     = umbrav1.ShadowMode_SHADOW_MODE_RUN
	modeCommit  = umbrav1.ShadowMode_SHADOW_MODE_COMMIT
	modeDelete  = umbrav1.ShadowMode_SHADOW_MODE_DELETE

	receiving = umbrav1.ShadowPhase_SHADOW_PHASE_RECEIVING
	stopped   = umbrav1.ShadowPhase_SHADOW_PHASE_STOPPED
	running   = umbrav1.ShadowPhase_SHADOW_PHASE_RUNNING
	failed    = umbrav1.ShadowPhase_SHADOW_PHASE_FAILED
	committed = umbrav1.ShadowPhase_SHADOW_PHASE_COMMITTED
	deleted   = umbrav1.ShadowPhase_SHADOW_PHASE_DELETED
)

const serverXML = `<domain type='qemu' id='7'>
  <name>web-main</name>
  <uuid>` + serverUUID + `</uuid>
  <memory unit='MiB'>512</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/main/vda.qcow2'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/main/vdb.qcow2'/><target dev='vdb' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:11:22:33'/><source network='lan'/><model type='virtio'/></interface>
  </devices>
</domain>`

var errCrash = errors.New("the host daemon was killed")

// world is a shadow host: it outlives the hostds that run on it.
type world struct {
	t       *testing.T
	dir     string
	target  *fakeTarget
	replica *fakeReplica
	real    Replica // takes the fake's place when set

	mu      sync.Mutex
	touches int
	dieAt   int                              // the touch at which hostd is killed; 0: never
	fault   func(touch int, op string) error // an error that one call returns
	// powerless: the host loses its power then, so its servers end too.
	powerless bool
	dead      bool
	death     context.CancelFunc
}

func newWorld(t *testing.T, points int) *world {
	t.Helper()
	w := &world{t: t, dir: memoryDir(t)}
	w.target = newFakeTarget(w)
	w.replica = &fakeReplica{world: w, accepted: map[string]uint64{}}
	for _, d := range []string{w.storeDir(), w.serversDir()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.replica.open()
	for i := range points {
		w.addPoint(i)
	}
	t.Cleanup(w.replica.close)
	return w
}

// memoryDir is a folder in memory where there is one: a killed process loses nothing that it has written, so waiting
// for a disk would prove nothing here.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "umbra-shadowserver-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (w *world) storeDir() string   { return filepath.Join(w.dir, "store") }
func (w *world) serversDir() string { return filepath.Join(w.dir, "servers") }
func (w *world) attemptDir(n int) string {
	return filepath.Join(w.serversDir(), pair, fmt.Sprintf("attempt-%d", n))
}

func pointName(i int) string { return fmt.Sprintf("rp-%012d", i+1) }

func (w *world) addPoint(i int) {
	w.t.Helper()
	ctx := context.Background()
	s := w.replica.store
	check := func(err error) {
		w.t.Helper()
		if err != nil {
			w.t.Fatal(err)
		}
	}
	check(s.EnsureDisks(ctx, []recoverystore.DiskSpec{{Name: "vda", SizeBytes: diskBytes}, {Name: "vdb", SizeBytes: diskBytes}}))
	d, err := s.Begin()
	check(err)
	data := make([]byte, recoverystore.ClusterSize)
	for j := range data {
		data[j] = byte(i + j + 1)
	}
	check(d.WriteClusters("vda", 0, data, nil))
	check(d.WriteClusters("vdb", uint64(i%3), data, nil))
	p, err := d.Complete(ctx, recoverystore.PointMeta{
		Epoch: 1, CreateTime: time.Unix(int64(1000+i), 0), Consistency: recoverystore.CrashConsistent,
		Checkpoint: fmt.Sprintf("umbra-%d", i), ServerXML: serverXML,
	})
	check(err)
	if string(p.ID) != pointName(i) {
		w.t.Fatalf("point %d is named %s", i, p.ID)
	}
}

// touch counts the places where hostd may be killed or a call may fail.
func (w *world) touch(op string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		return errCrash
	}
	w.touches++
	if w.touches == w.dieAt {
		w.dead = true
		w.death()
		if w.powerless {
			w.target.losePower()
		}
		return errCrash
	}
	if w.fault != nil {
		return w.fault(w.touches, op)
	}
	return nil
}

// effect is a call that changes something: hostd may be killed before it and after it.
func (w *world) effect(op string, do func() error) error {
	if err := w.touch("before " + op); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return w.touch("after " + op)
}

// life is one run of hostd on the world.
type life struct {
	*world
	role    *Role
	journal *journal.Journal
	cancel  context.CancelFunc
	ended   chan struct{}

	mu      sync.Mutex
	last    *umbrav1.AssignmentReport
	history []*umbrav1.ShadowReport
	arrived chan struct{}
}

func (w *world) start(set ...*umbrav1.Assignment) *life {
	w.t.Helper()
	j, err := journal.Open(filepath.Join(w.dir, "state"))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{world: w, journal: j, cancel: cancel, ended: make(chan struct{}), arrived: make(chan struct{}, 1)}
	w.mu.Lock()
	w.dead, w.death = false, cancel
	w.mu.Unlock()
	cfg := Config{
		StoreDir: w.storeDir(), ServersDir: w.serversDir(),
		Replica: w.replica, Target: w.target, Journal: j, Clock: clock.System,
		Log: slog.New(slog.DiscardHandler), Report: l.report,
		FreeBytes:  w.target.free,
		LinkExists: func(string) bool { return false },
		Dial:       func(context.Context, string) error { return w.target.dialError },
	}
	if w.real != nil {
		cfg.Replica = w.real
	}
	cfg.faults = w.touch
	if l.role, err = New(cfg); err != nil {
		w.t.Fatal(err)
	}
	l.role.Assign(set)
	go func() {
		defer close(l.ended)
		if err := l.role.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	return l
}

// end stops this hostd, by its own hand or after it was killed, and takes its locks away.
func (l *life) end() {
	l.cancel()
	<-l.ended
	if err := l.journal.Close(); err != nil {
		l.t.Error(err)
	}
	l.replica.reopen()
}

func (l *life) report(r *umbrav1.AssignmentReport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = r
	l.history = append(l.history, proto.CloneOf(r.GetShadow()))
	wake(l.arrived)
}

// until waits for a report; nil means that hostd was killed before.
func (l *life) until(what string, want func(*umbrav1.AssignmentReport) bool) *umbrav1.ShadowReport {
	l.t.Helper()
	timeout := time.NewTimer(waitMax)
	defer timeout.Stop()
	for {
		l.mu.Lock()
		last := l.last
		l.mu.Unlock()
		if last != nil && want(last) {
			return last.GetShadow()
		}
		select {
		case <-l.arrived:
		case <-l.ended:
			return nil
		case <-timeout.C:
			l.t.Fatalf("waited in vain for %s; the last report is %v", what, last)
		}
	}
}

// phase waits until the assignment has reached a phase.
func (l *life) phase(a *umbrav1.Assignment, phase umbrav1.ShadowPhase) *umbrav1.ShadowReport {
	l.t.Helper()
	return l.until(phase.String(), func(r *umbrav1.AssignmentReport) bool {
		return r.GetGeneration() == a.GetGeneration() && r.GetShadow().GetPhase() == phase
	})
}

// act gives an assignment to a running hostd and waits for its phase.
func (l *life) act(a *umbrav1.Assignment, phase umbrav1.ShadowPhase) *umbrav1.ShadowReport {
	l.t.Helper()
	l.role.Assign([]*umbrav1.Assignment{a})
	return l.phase(a, phase)
}

// assignment makes one; the options change it.
func assignment(generation, epoch uint64, mode umbrav1.ShadowMode, options ...func(*umbrav1.ShadowAssignment)) *umbrav1.Assignment {
	s := &umbrav1.ShadowAssignment{Mode: mode, MainHost: "main", Server: serverName, Policy: &umbrav1.Policy{}}
	for _, o := range options {
		o(s)
	}
	return &umbrav1.Assignment{
		DrPair: pair, Generation: generation, Epoch: epoch,
		Role: &umbrav1.Assignment_Shadow{Shadow: s},
	}
}

func attemptOf(number uint64, point int) func(*umbrav1.ShadowAssignment) {
	return func(s *umbrav1.ShadowAssignment) {
		s.Attempt = &umbrav1.Attempt{Number: number, RecoveryPoint: pointName(point)}
	}
}

func deletePoints(s *umbrav1.ShadowAssignment) { s.DeleteRecoveryPoints = true }

// inBubble runs a test on fake time.
func inBubble(t *testing.T, points int, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, points)) })
}
