package hypervisortest

import (
	"slices"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func backupSinceAnUnknownCheckpointIsCheckpointLost(t *testing.T, b *bench) {
	b.start(t)
	_, err := b.hypervisor.BeginBackup(t.Context(), b.request("umbra-2", "umbra-1"))
	wantError(t, err, hypervisor.ErrCheckpointLost)
	want(t, "checkpoints", b.checkpoints(t), "")
}

// The bitmap is in the image by then, marked as in use, which is another case than one that never got there.
func backupAfterACrashIsCheckpointLost(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	must(t, b.hypervisor.Destroy(t.Context(), b.server))
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.cycle(t, "umbra-2", "umbra-1")
	b.begin(t, "umbra-3", "umbra-2")
	b.Crash(t, b.server)
	_, err := b.hypervisor.BeginBackup(t.Context(), b.request("umbra-4", "umbra-2"))
	wantError(t, err, hypervisor.ErrNotRunning)
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.GuestWrites(t, b.server, "vda", 6, 6*mib, mib)
	for _, since := range []string{"umbra-1", "umbra-2"} {
		_, err = b.hypervisor.BeginBackup(t.Context(), b.request("umbra-4", since))
		wantError(t, err, hypervisor.ErrCheckpointLost)
	}
	backup := b.begin(t, "umbra-4", "")
	want(t, "content", content(t, backup, "vda"), "6@6")
	b.end(t)
	b.GuestWrites(t, b.server, "vda", 7, 7*mib, mib)
	backup = b.begin(t, "umbra-5", "umbra-4")
	want(t, "changes", dirty(t, backup, "vda"), "7168+1024")
}

func checkpointsSurviveAnOrderlyStop(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	b.GuestWrites(t, b.server, "vda", 1, 1*mib, mib)
	must(t, b.hypervisor.Shutdown(t.Context(), b.server, 10*time.Millisecond))
	want(t, "checkpoints of the server that is off", b.checkpoints(t), "umbra-1")
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.GuestWrites(t, b.server, "vda", 2, 3*mib, mib)
	backup := b.begin(t, "umbra-2", "umbra-1")
	want(t, "changes", dirty(t, backup, "vda"), "1024+1024 3072+1024")
}

func checkpointsAreListedOldestFirst(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-9", "")
	b.BeginForeignBackup(t, b.server, "foreign-1")
	b.EndForeignBackup(t, b.server)
	b.cycle(t, "umbra-10", "umbra-9")
	b.cycle(t, "umbra-8", "")
	want(t, "checkpoints", b.checkpoints(t), "umbra-9 umbra-10 umbra-8")
	for _, name := range []string{"umbra-9", "umbra-10", "umbra-8"} {
		must(t, b.hypervisor.DeleteCheckpoint(t.Context(), b.server, name))
	}
	want(t, "checkpoints after deleting them", b.checkpoints(t), "")
	if err := b.hypervisor.DeleteCheckpoint(t.Context(), b.server, "foreign-1"); err == nil {
		t.Error("a foreign checkpoint could be deleted")
	}
	if names := b.CheckpointNames(t, b.server); !slices.Equal(names, []string{"foreign-1"}) {
		t.Errorf("checkpoints left: %v, want the foreign one", names)
	}
}

func deletingACheckpointKeepsTheOthersWorking(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	b.GuestWrites(t, b.server, "vda", 1, 1*mib, mib)
	b.cycle(t, "umbra-2", "umbra-1")
	b.GuestWrites(t, b.server, "vda", 2, 2*mib, mib)
	for range 2 {
		must(t, b.hypervisor.DeleteCheckpoint(t.Context(), b.server, "umbra-2"))
	}
	backup := b.begin(t, "umbra-3", "umbra-1")
	want(t, "changes", dirty(t, backup, "vda"), "1024+2048")
	must(t, b.hypervisor.DeleteCheckpoint(t.Context(), b.server, "umbra-1"))
	b.end(t)
	backup = b.begin(t, "umbra-4", "umbra-3")
	want(t, "changes", dirty(t, backup, "vda"), "")
}

func brokenCheckpointIsDeleted(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	must(t, b.hypervisor.Destroy(t.Context(), b.server))
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.cycle(t, "umbra-2", "umbra-1")
	b.Crash(t, b.server)
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.cycle(t, "umbra-3", "")
	for _, name := range []string{"umbra-1", "umbra-2"} {
		must(t, b.hypervisor.DeleteCheckpoint(t.Context(), b.server, name))
	}
	want(t, "checkpoints", b.checkpoints(t), "umbra-3")
	b.GuestWrites(t, b.server, "vda", 3, 3*mib, mib)
	backup := b.begin(t, "umbra-4", "umbra-3")
	want(t, "changes", dirty(t, backup, "vda"), "3072+1024")
}

// That a name can be used again shows that nothing of that name is left in the image.
func checkpointOfAServerThatIsOffIsDeleted(t *testing.T, b *bench) {
	b.start(t, DiskSpec{"vda", "qcow2", 16 * mib}, DiskSpec{"vdb", "raw", 8 * mib}, DiskSpec{"vdc", "qcow2", 8 * mib})
	both := func(checkpoint, since string) hypervisor.Backup {
		return b.begin(t, checkpoint, since, "vda", "vdb", "vdc")
	}
	both("umbra-1", "")
	b.end(t)
	b.BeginForeignBackup(t, b.server, "foreign-1")
	b.EndForeignBackup(t, b.server)
	b.GuestWrites(t, b.server, "vda", 1, 1*mib, mib)
	both("umbra-2", "umbra-1")
	b.end(t)
	b.GuestWrites(t, b.server, "vdc", 2, 3*mib, mib)
	must(t, b.hypervisor.Shutdown(t.Context(), b.server, 0))
	for range 2 {
		must(t, b.hypervisor.DeleteCheckpoint(t.Context(), b.server, "umbra-2"))
	}
	if err := b.hypervisor.DeleteCheckpoint(t.Context(), b.server, "foreign-1"); err == nil {
		t.Error("a foreign checkpoint could be deleted")
	}
	names := b.CheckpointNames(t, b.server)
	if slices.Sort(names); !slices.Equal(names, []string{"foreign-1", "umbra-1"}) {
		t.Errorf("checkpoints left: %v, want foreign-1 and umbra-1", names)
	}
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.GuestWrites(t, b.server, "vda", 3, 5*mib, mib)
	backup := both("umbra-2", "umbra-1")
	want(t, "changes of vda", dirty(t, backup, "vda"), "1024+1024 5120+1024")
	want(t, "changes of vdc", dirty(t, backup, "vdc"), "3072+1024")
}

func brokenCheckpointOfAServerThatIsOffIsDeleted(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	must(t, b.hypervisor.Destroy(t.Context(), b.server))
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.cycle(t, "umbra-2", "umbra-1") // its bitmap has not got into the image when the server crashes
	b.Crash(t, b.server)
	for _, name := range []string{"umbra-1", "umbra-2"} {
		must(t, b.hypervisor.DeleteCheckpoint(t.Context(), b.server, name))
	}
	want(t, "checkpoints", b.checkpoints(t), "")
	must(t, b.hypervisor.Start(t.Context(), b.server))
	b.cycle(t, "umbra-1", "")
	b.cycle(t, "umbra-2", "umbra-1")
}
