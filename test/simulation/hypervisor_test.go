package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/hypervisor/simulated"
)

// mood is what a call of the hypervisor meets.
type mood int

const (
	calm mood = iota
	failing
	failingAfter // the call is carried out, and its answer is lost
	hanging
)

var errInjected = errors.New("injected: the hypervisor has failed")

// machine is a host's hypervisor, which outlives the daemons that use it.
type machine struct {
	*simulated.Hypervisor
	mu   sync.Mutex
	mood mood
	odds float64 // of a call to meet the mood
	// copyCrash is the odds of a server to crash as a copy of a disk of it begins or ends.
	copyCrash float64
	rand      *rand.Rand
	calmed    chan struct{} // closed when hanging calls go on
	servers   map[string]*history
	starts    map[string]int // how often a daemon asked for that, by server
}

func (m *machine) noteStart(server string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.starts[server]++
}

func (m *machine) started(server string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts[server]
}

func newMachine(seed uint64) *machine {
	return &machine{
		Hypervisor: simulated.New(hypervisor.Host{
			LibvirtVersion: "0.0.0", CPUs: 8, MemoryBytes: 64 << 30, MemoryFreeBytes: 60 << 30, Networks: []string{"lan"}, KVM: true,
			ServerUID: -1, ServerGID: -1,
		}),
		rand: rand.New(rand.NewPCG(seed, 7)), calmed: make(chan struct{}), servers: map[string]*history{}, starts: map[string]int{},
	}
}

// addServer defines a running server with empty disks.
func (m *machine) addServer(ctx context.Context, name, uuid string) (*history, error) {
	devices := ""
	for _, disk := range diskNames {
		path := filepath.Join("/images", name+"-"+disk)
		m.AddImage(path, diskSizes[disk])
		devices += fmt.Sprintf(`<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='%s'/><target dev='%s' bus='virtio'/></disk>`, path, disk)
	}
	devices += `<interface type='network'><mac address='52:54:00:11:22:33'/><source network='lan'/><model type='virtio'/></interface>`
	xml := fmt.Sprintf(`<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>`+
		`<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>%s</devices></domain>`, name, uuid, devices)
	if err := errors.Join(m.Define(ctx, xml), m.SetAutostart(ctx, name, true), m.Start(ctx, name)); err != nil {
		return nil, err
	}
	h := newHistory()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.servers[name] = h
	return h, nil
}

func (m *machine) history(server string) *history {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.servers[server]
}

// guestWrites has the guest write, if it runs.
func (m *machine) guestWrites(ctx context.Context, server string, w diskWrite) bool {
	h := m.history(server)
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.GuestWrites(ctx, server, w.disk, w.bytes(), w.offset) != nil {
		return false
	}
	h.writes = append(h.writes, w)
	return true
}

func (m *machine) turn(to mood, odds float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mood == hanging && to != hanging {
		close(m.calmed)
		m.calmed = make(chan struct{})
	}
	m.mood, m.odds = to, odds
}

// atCopy crashes the server, if that is to be.
func (m *machine) atCopy(ctx context.Context, server string) error {
	m.mu.Lock()
	crash := m.rand.Float64() < m.copyCrash
	m.mu.Unlock()
	if !crash {
		return nil
	}
	return m.Crash(ctx, server)
}

func (m *machine) crashAtCopies(odds float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copyCrash = odds
}

func (m *machine) meets() (mood, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mood == calm || m.rand.Float64() >= m.odds {
		return calm, nil
	}
	return m.mood, m.calmed
}

// grip is one daemon's use of the hypervisor. It ends at one instant with its daemon.
type grip struct {
	machine *machine
	life    context.Context
}

var (
	_ hypervisor.Source = grip{}
	_ hypervisor.Target = grip{}
)

func (g grip) do(ctx context.Context, call func(context.Context) error) error {
	meets, calmed := g.machine.meets()
	switch meets {
	case failing:
		return errInjected
	case hanging:
		select {
		case <-calmed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-g.life.Done():
		}
	}
	if g.life.Err() != nil {
		return context.Canceled
	}
	err := call(ctx)
	if meets == failingAfter && err == nil {
		return errInjected
	}
	return err
}

func ask[T any](ctx context.Context, g grip, call func(context.Context) (T, error)) (T, error) {
	var answer T
	err := g.do(ctx, func(ctx context.Context) (err error) {
		answer, err = call(ctx)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return answer, nil
}

func (g grip) Host(ctx context.Context) (hypervisor.Host, error) { return ask(ctx, g, g.machine.Host) }

func (g grip) Servers(ctx context.Context) ([]hypervisor.Server, error) {
	return ask(ctx, g, g.machine.Servers)
}

func (g grip) Server(ctx context.Context, name string) (hypervisor.Server, error) {
	return ask(ctx, g, func(ctx context.Context) (hypervisor.Server, error) { return g.machine.Server(ctx, name) })
}

func (g grip) ServerXML(ctx context.Context, name string) (string, error) {
	return ask(ctx, g, func(ctx context.Context) (string, error) { return g.machine.ServerXML(ctx, name) })
}

func (g grip) Diagnostics(ctx context.Context, name string) (map[string][]byte, error) {
	return ask(ctx, g, func(ctx context.Context) (map[string][]byte, error) { return g.machine.Diagnostics(ctx, name) })
}

// BeginBackup also notes which moment the job shows.
func (g grip) BeginBackup(ctx context.Context, req hypervisor.BackupRequest) (hypervisor.Backup, error) {
	return ask(ctx, g, func(ctx context.Context) (hypervisor.Backup, error) {
		h := g.machine.history(req.Server)
		h.mu.Lock()
		defer h.mu.Unlock()
		backup, err := g.machine.BeginBackup(ctx, req)
		if err == nil {
			h.moments[req.Checkpoint] = len(h.writes)
		}
		return backup, err
	})
}

func (g grip) EndBackup(ctx context.Context, server, runDir string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.EndBackup(ctx, server, runDir) })
}

func (g grip) IOCounters(ctx context.Context, server string) (hypervisor.IOCounters, error) {
	return ask(ctx, g, func(ctx context.Context) (hypervisor.IOCounters, error) { return g.machine.IOCounters(ctx, server) })
}

func (g grip) Checkpoints(ctx context.Context, server string) ([]string, error) {
	return ask(ctx, g, func(ctx context.Context) ([]string, error) { return g.machine.Checkpoints(ctx, server) })
}

func (g grip) DeleteCheckpoint(ctx context.Context, server, checkpoint string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.DeleteCheckpoint(ctx, server, checkpoint) })
}

func (g grip) Shutdown(ctx context.Context, server string, grace time.Duration) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Shutdown(ctx, server, grace) })
}

func (g grip) Start(ctx context.Context, server string) error {
	g.machine.noteStart(server)
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Start(ctx, server) })
}

func (g grip) SetLinks(ctx context.Context, server string, up bool) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.SetLinks(ctx, server, up) })
}

func (g grip) SetAutostart(ctx context.Context, server string, on bool) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.SetAutostart(ctx, server, on) })
}

func (g grip) Define(ctx context.Context, xml string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Define(ctx, xml) })
}

func (g grip) CheckDefinition(ctx context.Context, xml string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.CheckDefinition(ctx, xml) })
}

func (g grip) Destroy(ctx context.Context, server string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Destroy(ctx, server) })
}

func (g grip) Undefine(ctx context.Context, server string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Undefine(ctx, server) })
}

func (g grip) CreateImage(ctx context.Context, path string, sizeBytes int64) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.CreateImage(ctx, path, sizeBytes) })
}

func (g grip) CopyStart(ctx context.Context, server, disk, path string) error {
	return g.do(ctx, func(ctx context.Context) error {
		return errors.Join(g.machine.CopyStart(ctx, server, disk, path), g.machine.atCopy(ctx, server))
	})
}

func (g grip) CopySwitch(ctx context.Context, server, disk string) error {
	return g.do(ctx, func(ctx context.Context) error {
		return errors.Join(g.machine.CopySwitch(ctx, server, disk), g.machine.atCopy(ctx, server))
	})
}

func (g grip) Suspend(ctx context.Context, server string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Suspend(ctx, server) })
}

func (g grip) Resume(ctx context.Context, server string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.Resume(ctx, server) })
}

func (g grip) CopyLimit(ctx context.Context, server, disk string, bytesPerSecond int64) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.CopyLimit(ctx, server, disk, bytesPerSecond) })
}

func (g grip) CopyCancel(ctx context.Context, server, disk string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.CopyCancel(ctx, server, disk) })
}

func (g grip) CopyStatus(ctx context.Context, server, disk string) (hypervisor.DiskCopy, error) {
	return ask(ctx, g, func(ctx context.Context) (hypervisor.DiskCopy, error) { return g.machine.CopyStatus(ctx, server, disk) })
}

func (g grip) AgentPing(ctx context.Context, server string) error {
	return g.do(ctx, func(ctx context.Context) error { return g.machine.AgentPing(ctx, server) })
}
