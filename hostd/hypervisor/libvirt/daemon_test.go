package libvirt_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/hypervisor/libvirt"
)

func libvirtdThatRestartsIsReconnectedToAndItsJobIsEnded(t *testing.T, w *world) {
	w.start(t, "restart")
	request := w.request(t, "restart", "umbra-1")
	_, err := w.h.BeginBackup(t.Context(), request)
	must(t, err)
	must(t, w.host.Libvirtd.Kill(t.Context()))
	if _, err := w.h.Servers(t.Context()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("without libvirtd: %v, want %v", err, hypervisor.ErrUnavailable)
	}
	if err := w.h.EndBackup(t.Context(), "restart", request.RunDir); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("ending a job without libvirtd: %v, want %v", err, hypervisor.ErrUnavailable)
	}
	must(t, w.host.Libvirtd.Start(t.Context()))
	must(t, w.host.WaitLibvirt(t.Context()))
	// Nothing is closed or made anew here: the next call finds its way.
	server, err := w.h.Server(t.Context(), "restart")
	must(t, err)
	if server.Power != hypervisor.PowerRunning {
		t.Fatalf("the server is %s", server.Power)
	}
	must(t, w.h.EndBackup(t.Context(), "restart", request.RunDir))
	request.Checkpoint, request.Since = "umbra-2", "umbra-1"
	_, err = w.h.BeginBackup(t.Context(), request)
	must(t, err)
}

// libvirtd 9.0 that is killed while it begins a backup job has written down that one runs, and not which. Here that is written
// into its state: the moment is hard to hit.
func backupJobThatLibvirtdHasLostIsNamed(t *testing.T, w *world) {
	w.start(t, "lost")
	request := w.request(t, "lost", "umbra-1")
	state := filepath.Join(w.host.Path("/run/libvirt/qemu"), "lost.xml")
	const job, devices = "<job type='none' async='backup' flags='0x0'/>", "<devices>"
	rewrite := func(old, replacement string) {
		t.Helper()
		must(t, w.host.Libvirtd.Kill(t.Context()))
		text, err := os.ReadFile(state)
		must(t, err)
		if !strings.Contains(string(text), old) {
			t.Fatalf("libvirtd has not written down %s", old)
		}
		must(t, os.WriteFile(state, []byte(strings.Replace(string(text), old, replacement, 1)), 0o600))
		must(t, w.host.Libvirtd.Start(t.Context()))
		must(t, w.host.WaitLibvirt(t.Context()))
		if _, err := w.h.Server(t.Context(), "lost"); !errors.Is(err, hypervisor.ErrUnavailable) {
			return
		}
		// It has been seen to die of what was written, once in dozens of runs. Elsewhere systemd starts it again.
		must(t, w.host.Libvirtd.Kill(t.Context()))
		must(t, w.host.Libvirtd.Start(t.Context()))
		must(t, w.host.WaitLibvirt(t.Context()))
	}
	rewrite(devices, job+devices)
	_, err := w.h.BeginBackup(t.Context(), request)
	if !errors.Is(err, hypervisor.ErrJobLost) {
		t.Errorf("beginning a job: %v, want %v", err, hypervisor.ErrJobLost)
	}
	must(t, w.h.EndBackup(t.Context(), "lost", request.RunDir)) // nothing waits for what nobody can end
	must(t, w.h.SetLinks(t.Context(), "lost", false))
	// What a person is told to do, while the server runs on.
	rewrite(" async='backup'", "")
	_, err = w.h.BeginBackup(t.Context(), request)
	must(t, err)
}

func hangingLibvirtdLetsCallsReturnAtTheirDeadline(t *testing.T, w *world) {
	impatient := libvirt.New(libvirt.Config{Socket: w.host.LibvirtSocket(), CallTimeout: 300 * time.Millisecond})
	defer impatient.Close()
	for _, h := range []*libvirt.Hypervisor{w.h, impatient} {
		_, err := h.Servers(t.Context())
		must(t, err)
	}
	daemon := w.libvirtd(t)
	must(t, daemon.Signal(unix.SIGSTOP))
	defer func() { must(t, daemon.Signal(unix.SIGCONT)) }()

	// More calls than there are connections: none may wait for another's.
	var calls sync.WaitGroup
	for range 30 {
		calls.Go(func() {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := w.h.Servers(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, hypervisor.ErrUnavailable) {
				t.Errorf("a call with a deadline: %v, want the context's error", err)
			}
			if took := time.Since(begun); took > 5*time.Second {
				t.Errorf("a call with a deadline of 300 ms took %v", took)
			}
		})
	}
	calls.Wait()
	if _, err := impatient.Servers(t.Context()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("a call without a deadline: %v, want %v", err, hypervisor.ErrUnavailable)
	}
	must(t, daemon.Signal(unix.SIGCONT))
	_, err := w.h.Servers(t.Context())
	must(t, err)
	_, err = w.h.Servers(t.Context())
	must(t, err)
}

func hangingServerHoldsUpOnlyItself(t *testing.T, w *world) {
	w.start(t, "hangs")
	w.start(t, "works")
	request := w.request(t, "hangs", "umbra-1")
	qemu := w.qemu(t, "hangs")
	must(t, qemu.Signal(unix.SIGSTOP))
	defer func() { must(t, qemu.Signal(unix.SIGCONT)) }()

	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := w.h.BeginBackup(ctx, request); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a backup of the hanging server: %v, want %v", err, context.DeadlineExceeded)
	}
	begun := time.Now()
	servers, err := w.h.Servers(t.Context())
	must(t, err)
	if took := time.Since(begun); len(servers) < 2 || took > 5*time.Second {
		t.Errorf("listing %d servers took %v", len(servers), took)
	}
	for _, server := range servers {
		if server.Disks[0].SizeBytes != 16<<20 {
			t.Errorf("the disk of %s has %d bytes", server.Name, server.Disks[0].SizeBytes)
		}
	}
	_, err = w.h.BeginBackup(t.Context(), w.request(t, "works", "umbra-1"))
	must(t, err)

	// What was given up was still begun by libvirt, which nobody who begins the next job needs to know.
	must(t, qemu.Signal(unix.SIGCONT))
	request.Checkpoint = "umbra-2"
	_, err = w.h.BeginBackup(t.Context(), request)
	must(t, err)
}

func manyCallsAtOnceShareAFewConnections(t *testing.T, w *world) {
	var calls sync.WaitGroup
	for range 100 {
		calls.Go(func() {
			if _, err := w.h.Servers(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
}

func TestLibvirtThatIsNotThereIsUnavailable(t *testing.T) {
	h := libvirt.New(libvirt.Config{Socket: t.TempDir() + "/none"})
	defer h.Close()
	if _, err := h.Host(t.Context()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("error is %v, want %v", err, hypervisor.ErrUnavailable)
	}
}

func TestClosedHypervisorIsUnavailable(t *testing.T) {
	h := libvirt.New(libvirt.Config{Socket: t.TempDir() + "/none"})
	h.Close()
	h.Close()
	if _, err := h.Host(t.Context()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("error is %v, want %v", err, hypervisor.ErrUnavailable)
	}
}
