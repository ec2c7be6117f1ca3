package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/hypervisor/simulated"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/settings"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// site is a control plane: the command itself, in a process of its own.
type site struct {
	address string
	api     *grpc.ClientConn // as its local administrator
}

func startSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	command, socket := filepath.Join(dir, "umbra-controlplane"), filepath.Join(dir, "api.sock")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", command, "../../controlplane/cmd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the control plane: %v\n%s", err, out)
	}
	s := &site{address: freeAddress(t)}
	process := exec.CommandContext(context.Background(), command, "--state-dir", filepath.Join(dir, "state"), "--listen", s.address, "--unix-socket", socket, "--lease", "2s")
	process.Stderr = t.Output()
	must(t, process.Start())
	t.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = process.Wait()                          // how it ended does not matter
	})
	var err error
	s.api, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	t.Cleanup(func() { _ = s.api.Close() })
	_, err = umbrav1.NewHostServiceClient(s.api).ListHosts(soon(t), &umbrav1.ListHostsRequest{}, grpc.WaitForReady(true))
	must(t, err)
	return s
}

func (s *site) token(t *testing.T, host string) string {
	t.Helper()
	made, err := umbrav1.NewIdentityServiceClient(s.api).CreateJoinToken(soon(t), &umbrav1.CreateJoinTokenRequest{Host: "hosts/" + host})
	must(t, err)
	return made.GetToken()
}

func (s *site) protect(t *testing.T, pair, main, shadow string) {
	t.Helper()
	request := &umbrav1.CreateDRPairRequest{DrPairId: pair, DrPair: &umbrav1.DRPair{
		Main: &umbrav1.MainServer{Host: "hosts/" + main, Server: "srv-" + main}, Shadow: &umbrav1.ShadowServer{Host: "hosts/" + shadow},
		Policy: &umbrav1.Policy{Interval: durationpb.New(time.Second)},
	}}
	for ctx := soon(t); ; {
		_, err := umbrav1.NewProtectionServiceClient(s.api).CreateDRPair(ctx, request)
		if err == nil {
			return
		}
		if ctx.Err() != nil { // until then the host's inventory may not be there yet
			t.Fatal(err)
		}
		_ = clock.System.Wait(ctx, 20*time.Millisecond) // the next attempt tells
	}
}

// until watches the pair until it holds.
func (s *site) until(t *testing.T, pair string, holds func(*umbrav1.DRPair) bool) *umbrav1.DRPair {
	t.Helper()
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	watch, err := umbrav1.NewFailoverServiceClient(s.api).WatchDRPairs(ctx, &umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/" + pair}})
	must(t, err)
	var last *umbrav1.DRPair
	for {
		message, err := watch.Recv()
		if err != nil {
			t.Fatalf("%v; the pair is %v", err, last)
		}
		if shown := message.GetDrPair(); shown != nil {
			if last = shown; holds(shown) {
				return shown
			}
		}
	}
}

// newPoint waits for a point that is newer than those there are now.
func (s *site) newPoint(t *testing.T, pair string) {
	t.Helper()
	var before string
	s.until(t, pair, func(p *umbrav1.DRPair) bool { before = p.GetReplication().GetNewestRecoveryPoint(); return true })
	s.until(t, pair, func(p *umbrav1.DRPair) bool { return p.GetReplication().GetNewestRecoveryPoint() > before })
}

// daemon is one hostd, wired by its command, on a hypervisor in memory. It can live several times.
type daemon struct {
	hypervisor *simulated.Hypervisor
	flags      flags
	log        *heard
	stop       func()
}

func (s *site) newDaemon(t *testing.T, id string) *daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "umbra-") // a short path: sockets are in it
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := &daemon{log: &heard{news: make(chan struct{})}, hypervisor: simulated.New(hypervisor.Host{
		LibvirtVersion: "0.0.0", CPUs: 8, MemoryBytes: 64 << 30, MemoryFreeBytes: 60 << 30, Networks: []string{"lan"}, KVM: true, ServerUID: -1, ServerGID: -1,
	})}
	t.Cleanup(d.hypervisor.Close)
	d.flags = flags{
		HostID: hostID(id), ControlPlane: []settings.Address{settings.Address(s.address)}, DataListen: freeAddress(t),
		StateDir: filepath.Join(dir, "state"), StoreDir: filepath.Join(dir, "store"), ServersDir: filepath.Join(dir, "servers"), RunDir: filepath.Join(dir, "run"),
		CyclesMax: 4, ScratchBytesMax: 64 << 20, ScratchFreeMin: 1,
	}
	return d
}

// live begins a life, with that join token, which ends with the test or with stop.
func (d *daemon) live(t *testing.T, token string) {
	t.Helper()
	f := d.flags
	f.JoinToken = token
	log := slog.New(slog.NewTextHandler(d.log, nil)).With(telemetry.KeyHost, string(f.HostID))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, f, d.hypervisor, log) }()
	d.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("hostd on %s: %v", f.HostID, err)
		}
	})
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("hostd on %s:\n%s", f.HostID, d.log.read())
		}
	})
}

// addServer defines a running server with one disk.
func (d *daemon) addServer(t *testing.T) {
	t.Helper()
	name := "srv-" + string(d.flags.HostID)
	d.hypervisor.AddImage("/images/"+name, 4<<20)
	must(t, d.hypervisor.Define(t.Context(), fmt.Sprintf(`<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>`+
		`<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>`+
		`<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/images/%s'/><target dev='vda' bus='virtio'/></disk>`+
		`</devices></domain>`, name, uuid.NewString(), name)))
	must(t, d.hypervisor.Start(t.Context(), name))
}

// heard is a log that a test waits on.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
	news chan struct{}
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.news)
	h.news = make(chan struct{})
	return h.text.Write(p)
}

func (h *heard) read() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}

// until waits until the log, from that many bytes on, is as wanted, and returns its length.
func (h *heard) until(t *testing.T, from int, wanted func(text string) bool) int {
	t.Helper()
	ctx := soon(t)
	for {
		h.mu.Lock()
		text, news := h.text.String(), h.news
		h.mu.Unlock()
		if wanted(text[from:]) {
			return len(text)
		}
		select {
		case <-news:
		case <-ctx.Done():
			t.Fatalf("the log does not say so: %s", text[from:])
		}
	}
}

// freeAddress is free, and stays so while what listens there starts again: the system gives no port below 32768 to whoever asks for any.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if listener, err := net.Listen("tcp", address); err == nil {
			must(t, listener.Close())
			return address
		}
	}
	t.Fatal("no address is free")
	return ""
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
