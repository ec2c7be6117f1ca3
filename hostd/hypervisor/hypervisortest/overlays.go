package hypervisortest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func overlayIsEmptyPrivateAndNeverOverwritten(t *testing.T, b *bench) {
	path := filepath.Join(b.runDir, "vda.qcow2")
	must(t, b.hypervisor.CreateOverlay(t.Context(), path, 32*mib))
	info, err := os.Stat(path)
	must(t, err)
	want(t, "permissions", info.Mode().Perm(), 0o600)
	if info.Size() == 0 || info.Size() > mib {
		t.Errorf("an empty overlay has %d bytes", info.Size())
	}
	wantError(t, b.hypervisor.CreateOverlay(t.Context(), path, 32*mib), fs.ErrExist)
	again, err := os.Stat(path)
	must(t, err)
	want(t, "time of change", again.ModTime(), info.ModTime())
}

func diskWithoutBackingIsNotPulled(t *testing.T, b *bench) {
	b.start(t)
	backed, err := b.hypervisor.Backed(t.Context(), b.server, "vda")
	must(t, err)
	want(t, "backed", backed, false)
	wantError(t, b.hypervisor.PullStart(t.Context(), b.server, "vda"), hypervisor.ErrNotFound)
	_, err = b.hypervisor.PullStatus(t.Context(), b.server, "vda")
	wantError(t, err, hypervisor.ErrNotFound)
	_, err = b.hypervisor.Backed(t.Context(), b.server, "vdz")
	wantError(t, err, hypervisor.ErrNotFound)
	must(t, b.hypervisor.Destroy(t.Context(), b.server))
	_, err = b.hypervisor.Backed(t.Context(), b.server, "vda")
	wantError(t, err, hypervisor.ErrNotRunning)
}
