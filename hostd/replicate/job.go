package replicate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/nbd"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const (
	// beginMax bounds the begin of a backup job, which may freeze file systems.
	beginMax = time.Minute
	// endMax bounds the end of one. A job that could not be ended is ended by the next begin.
	endMax = 10 * time.Second
	// freezeBudget is how long file systems may be frozen for a point.
	freezeBudget = 5 * time.Second
)

// job is a running backup job of the server.
type job struct {
	worker     *worker
	server     string
	checkpoint string
	since      string
	backup     hypervisor.Backup
	exports    []*export
	ended      bool
}

// runDir is the pair's folder for sockets and scratch files.
func (w *worker) runDir() string { return filepath.Join(w.cfg.RunDir, w.pair) }

// endBackup ends a backup job of the pair, also one of an earlier life, within the time. It works after ctx has ended.
func (w *worker) endBackup(ctx context.Context, server string, within time.Duration) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer stop()
	err := w.cfg.Source.EndBackup(ctx, server, w.runDir())
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return fmt.Errorf("ending the backup job of server %s: %w", server, err)
	}
	return nil
}

// endLeftJob ends a backup job that an earlier life of the daemon left, or that could not be ended when its cycle was. It tells
// whether none remains; one that does is to be tried again.
func (w *worker) endLeftJob(ctx context.Context, within time.Duration) bool {
	server := w.desired.current().GetMain().GetServer()
	err := w.endBackup(ctx, server, within)
	if err != nil {
		w.log.Warn("a backup job remains on a server that does not replicate", "server", server, "error", err)
	}
	return err == nil
}

// beginJob begins a backup job for the disks and tells the shadow. The caller owes an end, unless there is an error.
func (s *session) beginJob(ctx context.Context, since string) (*job, error) {
	w := s.worker
	a := w.desired.current()
	j := &job{worker: w, server: a.GetMain().GetServer(), since: since}
	xml, err := w.serverXML(ctx, j.server)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(w.runDir(), 0o700); err != nil {
		return nil, fmt.Errorf("making the folder for backup jobs: %w", err)
	}
	free, err := w.cfg.FreeBytes(w.cfg.RunDir)
	if err != nil {
		return nil, err
	}
	if needed := w.cfg.freeNeeded(scratchSoftPercent); free < needed {
		return nil, fmt.Errorf("%s has %d MiB free, and a backup job needs %d MiB: %w", w.cfg.RunDir, free>>20, needed>>20, errScratchSpace)
	}
	at := w.cfg.Clock.Now()
	j.checkpoint = checkpointName(w.pair, a.GetEpoch(), at)
	request := hypervisor.BackupRequest{
		Server: j.server, UUID: a.GetMain().GetServerUuid(), Checkpoint: j.checkpoint, Since: since,
		Disks: targets(s.disks), RunDir: w.runDir(),
	}
	if a.GetMain().GetPolicy().GetConsistency() == umbrav1.Consistency_CONSISTENCY_APPLICATION {
		request.FreezeBudget = freezeBudget
	}
	if err := j.begin(ctx, request); err != nil {
		j.end(ctx)
		return nil, err
	}
	err = j.connect(ctx, s)
	if err == nil {
		err = s.link.control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_BeginJob{BeginJob: &umbrav1.BeginJob{
			Checkpoint: j.checkpoint, PointTime: timestamppb.New(at), Consistency: j.consistency(),
			ServerXml: xml, Nvram: nvramOf(xml, w.log), TraceParent: tracing.TraceParent(ctx),
		}}})
	}
	if err != nil {
		j.end(ctx)
		return nil, err
	}
	return j, nil
}

func (w *worker) serverXML(ctx context.Context, server string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, callMax)
	defer stop()
	xml, err := w.cfg.Source.ServerXML(ctx, server)
	if err != nil {
		return "", fmt.Errorf("reading the definition of server %s: %w", server, err)
	}
	return xml, nil
}

func (j *job) begin(ctx context.Context, request hypervisor.BackupRequest) error {
	ctx, stop := context.WithTimeout(ctx, beginMax)
	defer stop()
	backup, err := j.worker.cfg.Source.BeginBackup(ctx, request)
	if err != nil {
		return fmt.Errorf("beginning a backup job of server %s: %w", j.server, err)
	}
	j.backup = backup
	return nil
}

func (j *job) consistency() umbrav1.Consistency {
	if j.backup.Frozen {
		return umbrav1.Consistency_CONSISTENCY_APPLICATION
	}
	if err := j.backup.FreezeError; err != nil {
		j.worker.log.Warn("file systems were not frozen, the point is crash-consistent", "server", j.server, "error", err)
	}
	return umbrav1.Consistency_CONSISTENCY_CRASH
}

// connect opens the disks of the job and decides from where on each must be read as a whole.
func (j *job) connect(ctx context.Context, s *session) error {
	ctx, stop := context.WithTimeout(ctx, callMax)
	defer stop()
	for i, d := range s.disks {
		x, found := j.backup.Disks[d.Target]
		if !found || x.SizeBytes != d.SizeBytes {
			return fmt.Errorf("disk %s: %w", d.Target, errDisksDiffer)
		}
		contexts := []string{contextAllocation}
		if x.Bitmap != "" && j.since != "" {
			contexts = append(contexts, x.Bitmap)
		}
		client, err := nbd.Dial(ctx, nbd.Config{
			Network: "unix", Address: j.backup.Socket, Export: x.Name, MetaContexts: contexts, InFlightMax: readsInFlight,
		})
		if err != nil {
			return &sourceError{d.Target, err}
		}
		e := &export{client: client, target: d.Target, bitmap: x.Bitmap, sizeBytes: uint64(d.SizeBytes)}
		j.exports = append(j.exports, e)
		if client.Size() != e.sizeBytes {
			return fmt.Errorf("disk %s: %w", d.Target, errDisksDiffer)
		}
		if j.since != "" && x.Bitmap != "" && client.HasContext(x.Bitmap) {
			e.start = s.coverage.of(i, d)
		}
		// What was sent before is not compared again; what was there before that, or may be, is.
		e.compare = s.mayHold
	}
	return nil
}

func (j *job) scratch() []string {
	var paths []string
	for _, x := range j.backup.Disks {
		if x.Scratch != "" {
			paths = append(paths, x.Scratch)
		}
	}
	return paths
}

// end ends the job, once. What fails is only logged: the next begin ends what is left.
func (j *job) end(ctx context.Context) {
	if j.ended {
		return
	}
	j.ended = true
	for _, e := range j.exports {
		_ = e.client.Close() // always nil
	}
	if err := j.worker.endBackup(ctx, j.server, endMax); err != nil {
		j.worker.log.Warn("a backup job remains", "server", j.server, "error", err)
	}
}
