// Package replicate is the main role of hostd: for every pair whose main server runs here it makes recovery points on the shadow host, and it
// does to the main server what the pair's epoch asks (fencing, release).
//
// A pair has one worker, which converges on the newest assignment. In mode REPLICATE it keeps one stream to the shadow host open and runs one
// backup job after the other on it: what changed since the checkpoint that the shadow's coverage names, then what is not covered
// yet. Initial sync, increments, resync after a lost bitmap and Restart Replication are that one cycle with different coverage.
//
// It promises:
//
//   - A checkpoint is deleted only after the shadow has confirmed what makes it needless, and only if it is the pair's own.
//   - Other work that is assigned is reported at once as taken up, before the earlier work has ended: by a report of the new
//     generation and epoch without a phase.
//   - Before FENCED is reported no cycle of the epoch runs, and the server can do no harm: it is off, or disconnected (in its
//     definition, too), or left running where the policy says so. A server that is to be shut down is shut down after that, since a failover
//     waits for FENCED. The policy is applied again whenever the server returns. What is done to the server is journalled first, and undone
//     when its role returns.
//   - A server is started only after the control plane has confirmed its role (Config.Confirmed).
//   - A cycle leaves no backup job behind, whatever way it ends, as long as the hypervisor answers.
//   - Memory of a cycle is bounded: 16 chunks of 1 MiB, one read of 8 MiB before a copy of whole disks, 3 windows of checksums, and one bit
//     for each cluster of the disks.
package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/diskspace"
	"github.com/umbra-dr/umbra/pkg/tracing"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// What Config means by 0.
const (
	CyclesMaxDefault       = 4
	CopiesMaxDefault       = 2
	ScratchBytesMaxDefault = 8 << 30
	// ScratchFreeBytesMinDefault is room for what fast disks take while a job is being ended.
	ScratchFreeBytesMinDefault = 1 << 30
	CopyCostMaxDefault         = 0.1
)

// Config is what the main role needs.
type Config struct {
	// RunDir is a folder for sockets and scratch files; each pair gets a folder in it. Short: a socket's path has 108 bytes. On a
	// disk: scratch files grow to the size of what the server overwrites during a job.
	RunDir string
	// Source is the hypervisor.
	Source hypervisor.Source
	// Journal keeps records of kind journal.Replicate.
	Journal *journal.Journal
	// Dial prepares the way to hostd of the shadow host, which must prove to be that host. Its user closes it.
	Dial func(address, host string) (*transport.Conn, error)
	// Clock defaults to clock.System, Log to slog.Default.
	Clock clock.Clock
	Log   *slog.Logger
	// Tracer gets spans of cycles and of steps. nil: none.
	Tracer trace.Tracer
	// Report takes what is observed. It must not block; the newest of a pair counts.
	Report func(*umbrav1.AssignmentReport)
	// Confirmed tells whether the control plane has confirmed the assignments on a live session since this process started. Before
	// that no server is started and no fence undone. nil: Assign is only called with confirmed assignments.
	Confirmed func() bool
	// BootID names the present boot of the host. Empty: what the kernel says.
	BootID string
	// CyclesMax is how many increments run at once on this host, CopiesMax how many cycles that read whole disks. 0: the defaults.
	CyclesMax int
	CopiesMax int
	// CopyCostMax is the share of its own I/O that a server may lose at most while whole disks of it are copied. 1: it is not spared. 0: the default.
	CopyCostMax float64
	// ScratchBytesMax is how much the scratch files of a pair's backup job may take. 0: the default.
	ScratchBytesMax int64
	// ScratchFreeBytesMin is what stays free where RunDir is: jobs end, and none is begun, when there is less. 0: the default.
	ScratchFreeBytesMin int64
	// FreeBytes is the space that is free in the file system of a folder. Default: diskspace.Free.
	FreeBytes func(dir string) (int64, error)
}

// Replicator is the main role of a host.
type Replicator struct {
	cfg    Config
	shared *shared

	mu   sync.Mutex
	set  []*umbrav1.Assignment // what was assigned last
	wake chan struct{}         // of size 1: set has changed
}

// New makes a Replicator, which does nothing before Run.
func New(cfg Config) (*Replicator, error) {
	if cfg.RunDir == "" || cfg.Source == nil || cfg.Journal == nil || cfg.Dial == nil || cfg.Report == nil {
		return nil, errors.New("replicate: RunDir, Source, Journal, Dial and Report are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Tracer == nil {
		cfg.Tracer = tracing.Off()
	}
	if cfg.BootID == "" {
		id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return nil, fmt.Errorf("replicate: reading the id of the host's boot: %w", err)
		}
		cfg.BootID = strings.TrimSpace(string(id))
	}
	cfg.CyclesMax = orDefault(cfg.CyclesMax, CyclesMaxDefault)
	cfg.CopiesMax = orDefault(cfg.CopiesMax, CopiesMaxDefault)
	cfg.CopyCostMax = orDefault(cfg.CopyCostMax, CopyCostMaxDefault)
	cfg.ScratchBytesMax = orDefault(cfg.ScratchBytesMax, ScratchBytesMaxDefault)
	cfg.ScratchFreeBytesMin = orDefault(cfg.ScratchFreeBytesMin, ScratchFreeBytesMinDefault)
	if cfg.FreeBytes == nil {
		cfg.FreeBytes = diskspace.Free
	}
	return &Replicator{
		cfg: cfg,
		shared: &shared{
			increments: &slots{line: line{free: cfg.CyclesMax}},
			copies:     &slots{line: line{free: cfg.CopiesMax}},
			figures:    newFigures(),
		},
		wake: make(chan struct{}, 1),
	}, nil
}

func orDefault[T int | int64 | float64](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Assign takes the complete set of assignments with a main role; others are ignored. A pair that is not in it any more is let go: its
// work stops, its checkpoints and its record stay. Assign returns at once, and may be called before Run.
func (r *Replicator) Assign(set []*umbrav1.Assignment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set = nil
	for _, a := range set {
		if a.GetMain() != nil {
			r.set = append(r.set, a)
		}
	}
	signal(r.wake)
}

// Run works until ctx ends, then ends all jobs and streams and returns the context's error. It is called once.
func (r *Replicator) Run(ctx context.Context) error {
	team := &team{replicator: r, members: map[string]*member{}}
	defer team.working.Wait()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		}
		r.mu.Lock()
		set := r.set
		r.mu.Unlock()
		team.assign(ctx, set)
	}
}

// limitBurstBytes is how much may leave at once within the limit.
const limitBurstBytes = 4 * clusterBytes

// limit is the policy's bandwidth limit.
func limit(a *umbrav1.Assignment) rate.Limit {
	if n := a.GetMain().GetPolicy().GetBandwidthBytesPerSecond(); n > 0 {
		return rate.Limit(n)
	}
	return rate.Inf
}
