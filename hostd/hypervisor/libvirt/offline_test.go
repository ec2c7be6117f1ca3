package libvirt_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// offWithCheckpoints leaves a server off, with these checkpoints, and returns its image.
func (w *world) offWithCheckpoints(t *testing.T, name string, checkpoints ...string) string {
	t.Helper()
	w.start(t, name)
	request := w.request(t, name, "")
	for _, checkpoint := range checkpoints {
		if !strings.HasPrefix(checkpoint, "umbra-") {
			w.BeginForeignBackup(t, name, checkpoint)
			w.EndForeignBackup(t, name)
			continue
		}
		request.Checkpoint = checkpoint
		_, err := w.h.BeginBackup(t.Context(), request)
		must(t, err)
		must(t, w.h.EndBackup(t.Context(), name, request.RunDir))
	}
	must(t, w.h.Destroy(t.Context(), name))
	return filepath.Join(w.dir, name+"-vda")
}

func checkpointOfAServerThatIsOffLeavesNothingInTheImage(t *testing.T, w *world) {
	image := w.offWithCheckpoints(t, "off", "umbra-1", "umbra-11", "foreign-1")
	before, err := os.Stat(image)
	must(t, err)
	must(t, w.h.DeleteCheckpoint(t.Context(), "off", "umbra-1"))
	info := run(t, "qemu-img", "info", image)
	for name, stays := range map[string]bool{"umbra-1": false, "umbra-11": true, "foreign-1": true} {
		if strings.Contains(info, "name: "+name+"\n") != stays {
			t.Errorf("bitmap %s stays in the image: %v, want %v: %s", name, !stays, stays, info)
		}
	}
	if strings.Contains(info, "in-use") {
		t.Errorf("a bitmap was broken: %s", info)
	}
	if names := w.CheckpointNames(t, "off"); !slices.Equal(names, []string{"foreign-1", "umbra-11"}) {
		t.Errorf("checkpoints left: %v", names)
	}
	after, err := os.Stat(image)
	must(t, err)
	if was, is := before.Sys().(*syscall.Stat_t), after.Sys().(*syscall.Stat_t); was.Uid != is.Uid || was.Mode != is.Mode {
		t.Errorf("the image belonged to %d with mode %o, now to %d with %o", was.Uid, was.Mode, is.Uid, is.Mode)
	}
}

func checkpointOfAnImageThatCannotBeOpenedStays(t *testing.T, w *world) {
	image := w.offWithCheckpoints(t, "away", "umbra-1")
	must(t, os.Rename(image, image+".away"))
	if err := w.h.DeleteCheckpoint(t.Context(), "away", "umbra-1"); !errors.Is(err, hypervisor.ErrNotRunning) {
		t.Errorf("error is %v, want %v", err, hypervisor.ErrNotRunning)
	}
	if names := w.CheckpointNames(t, "away"); !slices.Equal(names, []string{"umbra-1"}) {
		t.Errorf("checkpoints left: %v", names)
	}
	must(t, os.Rename(image+".away", image))
	must(t, w.h.DeleteCheckpoint(t.Context(), "away", "umbra-1"))
}

// Whichever comes first, what is left can be repeated and the other bitmap still works.
func deletionAndStartAtOnceEndCleanly(t *testing.T, w *world) {
	w.offWithCheckpoints(t, "race", "umbra-1", "umbra-2", "umbra-3", "umbra-4")
	for _, name := range []string{"umbra-1", "umbra-2", "umbra-3"} {
		var both sync.WaitGroup
		both.Go(func() { t.Log(name, "deletion:", w.h.DeleteCheckpoint(t.Context(), "race", name)) })
		both.Go(func() { t.Log(name, "start:", w.h.Start(t.Context(), "race")) })
		both.Wait()
		must(t, w.h.Start(t.Context(), "race"))
		must(t, w.h.DeleteCheckpoint(t.Context(), "race", name))
		must(t, w.h.Destroy(t.Context(), "race"))
	}
	must(t, w.h.Start(t.Context(), "race"))
	w.GuestWrites(t, "race", "vda", 1, 1<<20, 1<<20)
	request := hypervisor.BackupRequest{
		Server: "race", Checkpoint: "umbra-5", Since: "umbra-4", Disks: []string{"vda"}, RunDir: filepath.Join(w.dir, "job-race"),
	}
	backup, err := w.h.BeginBackup(t.Context(), request)
	must(t, err)
	if backup.Disks["vda"].Bitmap == "" {
		t.Error("the checkpoint that was not deleted does not tell what changed")
	}
}

// A fence must not depend on an answer of the QEMU that it is about. libvirt takes some 10 s to kill one that hangs.
func hangingServerIsShutDown(t *testing.T, w *world) {
	w.start(t, "deaf")
	must(t, w.qemu(t, "deaf").Signal(unix.SIGSTOP))
	must(t, w.h.Shutdown(t.Context(), "deaf", 300*time.Millisecond))
	server, err := w.h.Server(t.Context(), "deaf")
	must(t, err)
	if server.Power != hypervisor.PowerOff {
		t.Errorf("the server is %v", server.Power)
	}
}
