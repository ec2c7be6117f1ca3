package simulated_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/hypervisor/hypervisortest"
	"github.com/umbra-dr/umbra/hostd/hypervisor/simulated"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSimulatedHypervisorKeepsTheContract(t *testing.T) { hypervisortest.Run(t, newWorld(t)) }

func TestHypervisorThatIsAwayIsUnavailableAndItsServersGoOn(t *testing.T) {
	w := newWorld(t)
	w.h.SetAvailable(false)
	if _, err := w.h.Servers(t.Context()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("error is %v, want %v", err, hypervisor.ErrUnavailable)
	}
	w.h.SetAvailable(true)
	if _, err := w.h.Servers(t.Context()); err != nil {
		t.Error(err)
	}
}

type world struct {
	h   *simulated.Hypervisor
	dir string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	// A test's own folder is too long a path for a socket.
	dir, err := os.MkdirTemp("", "sim")
	must(t, err)
	h := simulated.New(hypervisor.Host{LibvirtVersion: "0.0.0", CPUs: 2, MemoryBytes: 1 << 30, MemoryFreeBytes: 1 << 29})
	t.Cleanup(func() {
		h.Close()
		must(t, os.RemoveAll(dir))
	})
	return &world{h: h, dir: dir}
}

func (w *world) Hypervisor() hypervisortest.Hypervisor { return w.h }
func (w *world) Dir() string                           { return w.dir }

func (w *world) ServerXML(_ *testing.T, spec hypervisortest.ServerSpec) string {
	var devices strings.Builder
	for _, disk := range spec.Disks {
		path := filepath.Join(w.dir, spec.Name+"-"+disk.Target)
		w.h.AddImage(path, disk.SizeBytes)
		fmt.Fprintf(&devices, `<disk type='file' device='disk'><driver name='qemu' type='%s'/><source file='%s'/>`+
			`<target dev='%s' bus='virtio'/></disk>`, disk.Format, path, disk.Target)
	}
	return fmt.Sprintf(`<domain type='qemu'><name>%s</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>`+
		`<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>%s</devices></domain>`, spec.Name, devices.String())
}

func (w *world) GuestWrites(t *testing.T, server, disk string, value byte, offset, length int64) {
	t.Helper()
	must(t, w.h.GuestWrites(t.Context(), server, disk, bytes.Repeat([]byte{value}, int(length)), offset))
}

func (w *world) Crash(t *testing.T, server string) {
	t.Helper()
	must(t, w.h.Crash(t.Context(), server))
}

func (w *world) BeginForeignBackup(t *testing.T, server, checkpoint string) {
	t.Helper()
	must(t, w.h.BeginForeignBackup(t.Context(), server, checkpoint))
}

func (w *world) EndForeignBackup(t *testing.T, server string) {
	t.Helper()
	must(t, w.h.EndForeignBackup(t.Context(), server))
}

func (w *world) CheckpointNames(t *testing.T, server string) []string {
	t.Helper()
	names, err := w.h.CheckpointNames(t.Context(), server)
	must(t, err)
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
