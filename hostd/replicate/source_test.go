package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// testDisk is a qcow2 image with bitmaps, and what it holds.
type testDisk struct {
	hypervisor.Disk
	image string
	bytes []byte
}

// testSource is a hypervisor with one server. Its disks are real images, its bitmaps are QEMU's own, and its backup jobs are exports of QEMU's own
// NBD server. Every bitmap goes on recording until it is deleted, so each tells all that changed since it was made.
type testSource struct {
	hypervisor.Source // calls that no test expects
	dir               string
	t                 *testing.T

	mu          sync.Mutex
	server      hypervisor.Server
	disks       []*testDisk
	checkpoints []string
	lost        bool // the bitmaps are broken
	unreachable bool // checkpoints cannot be deleted, as of a server that is off and whose images are away
	linksUp     bool
	calls       []string
	deleted     chan string             // gets the checkpoints that are deleted
	jobs        int                     // begun
	pid         int                     // of the NBD server of the job that runs
	views       map[string][][]byte     // what each job's view holds, by checkpoint
	scratch     func(job int) int64     // allocated bytes of the scratch file of a job
	onBegin     func(checkpoint string) // called while a job begins
}

const (
	testServer = "web"
	testUUID   = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
)

func startSource(t *testing.T, sizes ...int64) *testSource {
	s := &testSource{
		dir: t.TempDir(), t: t, linksUp: true, deleted: make(chan string, 1000), views: map[string][][]byte{},
		server: hypervisor.Server{Name: testServer, UUID: testUUID, Power: hypervisor.PowerRunning, Autostart: true},
	}
	for _, size := range sizes {
		s.addDisk(size)
	}
	t.Cleanup(s.killServer)
	return s
}

func (s *testSource) addDisk(size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := "vd" + string(rune('a'+len(s.disks)))
	d := &testDisk{
		Disk:  hypervisor.Disk{Target: name, Format: "qcow2", SizeBytes: size, TracksChanges: true},
		image: filepath.Join(s.dir, name+".qcow2"), bytes: make([]byte, size),
	}
	s.tool("qemu-img", "create", "-q", "-f", "qcow2", d.image, strconv.FormatInt(size, 10))
	s.disks = append(s.disks, d)
}

func (s *testSource) tool(name string, args ...string) {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		s.t.Errorf("%s %v: %v: %s", name, args, err, out)
	}
}

// change is one write of the guest. A value of 0 punches a hole.
type change struct {
	disk, off, length int
	value             byte
}

// write is the guest at work.
func (s *testSource) write(changes ...change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range s.disks {
		var args []string
		for _, c := range changes {
			if c.disk != i {
				continue
			}
			command := fmt.Sprintf("write -P %d %d %d", c.value, c.off, c.length)
			if c.value == 0 {
				command = fmt.Sprintf("write -z -u %d %d", c.off, c.length)
			}
			args = append(args, "-c", command)
			for at := range c.length {
				d.bytes[c.off+at] = c.value
			}
		}
		if len(args) > 0 {
			s.tool("qemu-io", append(append([]string{"-f", "qcow2"}, args...), d.image)...)
		}
	}
}

// serverState is what a test wants to know of the server.
type serverState struct {
	checkpoints []string
	calls       []string
	linksUp     bool
	server      hypervisor.Server
	jobs        int
}

func (s *testSource) state() serverState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return serverState{slices.Clone(s.checkpoints), slices.Clone(s.calls), s.linksUp, s.server, s.jobs}
}

func (s *testSource) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// view is what the job of a checkpoint saw.
func (s *testSource) view(checkpoint string) [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.views[checkpoint]
}

func (s *testSource) Server(_ context.Context, name string) (hypervisor.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name != testServer || s.server.Power == hypervisor.PowerAbsent {
		return hypervisor.Server{}, hypervisor.ErrNotFound
	}
	server := s.server
	for _, d := range s.disks {
		server.Disks = append(server.Disks, d.Disk)
	}
	return server, nil
}

func (s *testSource) ServerXML(context.Context, string) (string, error) {
	return "<domain><name>web</name></domain>", nil
}

func (s *testSource) BeginBackup(_ context.Context, req hypervisor.BackupRequest) (hypervisor.Backup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server.Power != hypervisor.PowerRunning {
		return hypervisor.Backup{}, hypervisor.ErrNotRunning
	}
	if s.onBegin != nil {
		s.onBegin(req.Checkpoint)
	}
	if req.Since != "" && (s.lost || !slices.Contains(s.checkpoints, req.Since)) {
		return hypervisor.Backup{}, hypervisor.ErrCheckpointLost
	}
	if s.lost && len(s.checkpoints) > 0 {
		return hypervisor.Backup{}, fmt.Errorf("bitmaps are broken: %w", hypervisor.ErrCheckpointLost)
	}
	s.lost = false
	s.stopServer()
	s.jobs++
	job := hypervisor.Backup{Socket: filepath.Join(req.RunDir, "nbd.sock"), Disks: map[string]hypervisor.BackupExport{}}
	args := []string{"--daemonize", "--pidfile", filepath.Join(s.dir, "pid"), "--nbd-server", "addr.type=unix,addr.path=" + job.Socket}
	var view [][]byte
	for i, d := range s.disks {
		x, more := s.exportDisk(d, i, req)
		job.Disks[d.Target] = x
		args = append(args, more...)
		view = append(view, bytes.Clone(d.bytes))
	}
	s.views[req.Checkpoint] = view
	s.checkpoints = append(s.checkpoints, req.Checkpoint)
	s.tool("qemu-storage-daemon", args...)
	raw, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		return hypervisor.Backup{}, err
	}
	s.pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
	return job, err
}

// exportDisk freezes a disk as it is now, and says how it is exported.
func (s *testSource) exportDisk(d *testDisk, i int, req hypervisor.BackupRequest) (hypervisor.BackupExport, []string) {
	frozen := filepath.Join(req.RunDir, d.Target+".qcow2")
	s.tool("cp", d.image, frozen)
	scratch := filepath.Join(req.RunDir, d.Target+".scratch")
	var allocated int64
	if s.scratch != nil && i == 0 {
		allocated = s.scratch(s.jobs)
	}
	if err := os.WriteFile(scratch, make([]byte, allocated), 0o600); err != nil {
		s.t.Error(err)
	}
	x := hypervisor.BackupExport{Name: d.Target, SizeBytes: d.SizeBytes, Scratch: scratch}
	export := fmt.Sprintf("type=nbd,id=e%d,node-name=%s,name=%s,writable=off", i, d.Target, d.Target)
	if d.TracksChanges {
		// A granularity that is not the cluster's.
		s.tool("qemu-img", "bitmap", "--add", "-g", "128k", d.image, req.Checkpoint)
		if req.Since != "" && s.hasBitmap(d, req.Since) {
			x.Bitmap = "qemu:dirty-bitmap:" + req.Since
			export += ",bitmaps.0=" + req.Since
		}
	}
	node := fmt.Sprintf("driver=qcow2,node-name=%s,read-only=on,file.driver=file,file.filename=%s,file.read-only=on", d.Target, frozen)
	return x, []string{"--blockdev", node, "--export", export}
}

func (s *testSource) hasBitmap(d *testDisk, name string) bool {
	out, err := exec.Command("qemu-img", "info", d.image).Output()
	return err == nil && strings.Contains(string(out), "name: "+name)
}

// stopServer ends the job's NBD server. The lock is held.
func (s *testSource) stopServer() {
	if s.pid == 0 {
		return
	}
	if err := syscall.Kill(s.pid, syscall.SIGKILL); err != nil {
		s.t.Errorf("stopping the NBD server: %v", err)
	}
	s.pid = 0
}

func (s *testSource) killServer() { s.locked(s.stopServer) }

func (s *testSource) EndBackup(_ context.Context, _, runDir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopServer()
	files, err := filepath.Glob(filepath.Join(runDir, "*"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *testSource) jobRuns() (runs bool) {
	s.locked(func() { runs = s.pid != 0 })
	return runs
}

func (s *testSource) IOCounters(context.Context, string) (hypervisor.IOCounters, error) {
	return hypervisor.IOCounters{}, nil
}

func (s *testSource) Checkpoints(context.Context, string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.checkpoints), nil
}

func (s *testSource) DeleteCheckpoint(_ context.Context, _, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.checkpoints, name) {
		return nil
	}
	if s.unreachable {
		return hypervisor.ErrNotRunning
	}
	s.checkpoints = slices.DeleteFunc(s.checkpoints, func(n string) bool { return n == name })
	for _, d := range s.disks {
		if s.hasBitmap(d, name) {
			s.tool("qemu-img", "bitmap", "--remove", d.image, name)
		}
	}
	select {
	case s.deleted <- name:
	default:
		return errors.New("more deletions than the test takes")
	}
	return nil
}

// did notes a call that changes the server.
func (s *testSource) did(call string, change func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, call)
	change()
	return nil
}

func (s *testSource) count(call string) (n int) {
	s.locked(func() {
		for _, c := range s.calls {
			if c == call {
				n++
			}
		}
	})
	return n
}

func (s *testSource) Shutdown(context.Context, string, time.Duration) error {
	return s.did("shutdown", func() { s.server.Power = hypervisor.PowerOff; s.stopServer() })
}

func (s *testSource) Start(context.Context, string) error {
	return s.did("start", func() { s.server.Power = hypervisor.PowerRunning })
}

func (s *testSource) SetLinks(_ context.Context, _ string, up bool) error {
	return s.did(fmt.Sprint("links ", up), func() { s.linksUp = up })
}

func (s *testSource) SetAutostart(_ context.Context, _ string, on bool) error {
	return s.did(fmt.Sprint("autostart ", on), func() { s.server.Autostart = on })
}

// keysOf helps messages of tests.
func keysOf[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
