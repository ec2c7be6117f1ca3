package hypervisortest

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func newImageIsEmptyPrivateAndNeverOverwritten(t *testing.T, b *bench) {
	path := filepath.Join(b.runDir, "vda.qcow2")
	must(t, b.hypervisor.CreateImage(t.Context(), path, 32*mib))
	info, err := os.Stat(path)
	must(t, err)
	want(t, "permissions", info.Mode().Perm(), 0o600)
	if info.Size() == 0 || info.Size() > mib {
		t.Errorf("an empty image has %d bytes", info.Size())
	}
	wantError(t, b.hypervisor.CreateImage(t.Context(), path, 32*mib), fs.ErrExist)
	again, err := os.Stat(path)
	must(t, err)
	want(t, "time of change", again.ModTime(), info.ModTime())
}

func copyTakesTheDisksPlaceOnlyWhenAsked(t *testing.T, b *bench) {
	b.start(t)
	before := b.disk(t)
	path := b.emptyImage(t)
	_, err := b.hypervisor.CopyStatus(t.Context(), b.server, "vda")
	wantError(t, err, hypervisor.ErrNotFound)
	wantError(t, b.hypervisor.CopySwitch(t.Context(), b.server, "vda"), hypervisor.ErrNotFound)
	wantError(t, b.hypervisor.CopyStart(t.Context(), b.server, "vdz", path), hypervisor.ErrNotFound)
	wantError(t, b.hypervisor.CopyLimit(t.Context(), b.server, "vda", 0), hypervisor.ErrNotFound)
	for range 2 {
		must(t, b.hypervisor.CopyStart(t.Context(), b.server, "vda", path))
	}
	must(t, b.hypervisor.CopyCancel(t.Context(), b.server, "vda"))
	must(t, b.hypervisor.CopyCancel(t.Context(), b.server, "vda"))
	_, err = b.hypervisor.CopyStatus(t.Context(), b.server, "vda")
	wantError(t, err, hypervisor.ErrNotFound)
	want(t, "disk whose copy was cancelled", b.disk(t), before)
	must(t, os.Remove(path))
	must(t, b.hypervisor.CopyStart(t.Context(), b.server, "vda", b.emptyImage(t)))
	for _, limit := range []int64{64 * mib, 0} {
		must(t, b.hypervisor.CopyLimit(t.Context(), b.server, "vda", limit))
	}
	b.complete(t)
	want(t, "disk that is being copied", b.disk(t), before)
	must(t, b.hypervisor.Suspend(t.Context(), b.server))
	must(t, b.hypervisor.CopySwitch(t.Context(), b.server, "vda"))
	want(t, "disk after the switch", b.disk(t), path)
	wantError(t, b.hypervisor.CopySwitch(t.Context(), b.server, "vda"), hypervisor.ErrNotFound)
	must(t, b.hypervisor.Resume(t.Context(), b.server))
	must(t, b.hypervisor.Destroy(t.Context(), b.server))
	want(t, "disk of the definition", b.disk(t), path)
	wantError(t, b.hypervisor.CopyStart(t.Context(), b.server, "vda", before), hypervisor.ErrNotRunning)
	must(t, b.hypervisor.Start(t.Context(), b.server))
}

func copyEndsWithTheRun(t *testing.T, b *bench) {
	b.start(t)
	before := b.disk(t)
	path := b.emptyImage(t)
	must(t, b.hypervisor.CopyStart(t.Context(), b.server, "vda", path))
	b.complete(t)
	b.Crash(t, b.server)
	want(t, "disk after the crash", b.disk(t), before)
	must(t, b.hypervisor.Start(t.Context(), b.server))
	_, err := b.hypervisor.CopyStatus(t.Context(), b.server, "vda")
	wantError(t, err, hypervisor.ErrNotFound)
	must(t, os.Remove(path))
	must(t, b.hypervisor.CopyStart(t.Context(), b.server, "vda", b.emptyImage(t)))
	b.complete(t)
}

// emptyImage makes an image that the test's disk can be copied into.
func (b *bench) emptyImage(t *testing.T) (path string) {
	t.Helper()
	must(t, os.Chmod(b.runDir, 0o711))
	path = filepath.Join(b.runDir, "copy.qcow2")
	must(t, b.hypervisor.CreateImage(t.Context(), path, 16*mib))
	return path
}

// complete waits until the copy of the disk is complete.
func (b *bench) complete(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		job, err := b.hypervisor.CopyStatus(ctx, b.server, "vda")
		must(t, err)
		want(t, "path of the copy", job.Path, filepath.Join(b.runDir, "copy.qcow2"))
		if job.Complete {
			return
		}
	}
}

// disk is where the server's only disk is: of its run, when it is on, else of its definition.
func (b *bench) disk(t *testing.T) (path string) {
	t.Helper()
	server, err := b.hypervisor.Server(t.Context(), b.server)
	must(t, err)
	return server.Disks[0].Source
}
