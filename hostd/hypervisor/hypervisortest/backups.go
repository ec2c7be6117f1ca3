package hypervisortest

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func fullBackupShowsTheMomentItWasBegun(t *testing.T, b *bench) {
	b.start(t)
	b.GuestWrites(t, b.server, "vda", 7, 3*mib, mib)
	backup := b.begin(t, "umbra-1", "")
	b.GuestWrites(t, b.server, "vda", 9, 3*mib, mib)
	b.GuestWrites(t, b.server, "vda", 9, 8*mib, mib)
	want(t, "content", content(t, backup, "vda"), "7@3")
	want(t, "changes", dirty(t, backup, "vda"), "untold")
	want(t, "frozen", backup.Frozen, false)
	want(t, "freeze error", backup.FreezeError, nil)
	if info, err := os.Stat(backup.Disks["vda"].Scratch); err != nil || info.Size() == 0 {
		t.Errorf("there is no scratch file to watch: %v", err)
	}
}

func incrementalBackupNamesExactlyWhatChanged(t *testing.T, b *bench) {
	b.start(t)
	b.GuestWrites(t, b.server, "vda", 1, 0, mib)
	b.cycle(t, "umbra-1", "")
	b.GuestWrites(t, b.server, "vda", 2, 5*mib, mib)
	b.GuestWrites(t, b.server, "vda", 0, 64<<10, 64<<10)
	backup := b.begin(t, "umbra-2", "umbra-1")
	want(t, "changes", dirty(t, backup, "vda"), "64+64 5120+1024")
	b.end(t)
	backup = b.begin(t, "umbra-3", "umbra-2")
	want(t, "changes when nothing was written", dirty(t, backup, "vda"), "")
}

func incrementalBackupFromAnOlderCheckpointCoversAllSince(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	b.GuestWrites(t, b.server, "vda", 1, 1*mib, mib)
	b.cycle(t, "umbra-2", "umbra-1")
	b.GuestWrites(t, b.server, "vda", 2, 4*mib, mib)
	backup := b.begin(t, "umbra-3", "umbra-1")
	want(t, "changes", dirty(t, backup, "vda"), "1024+1024 4096+1024")
	want(t, "content", content(t, backup, "vda"), "1@1 2@4")
}

func backupTakesAllDisksAtOnceAndOnlyThoseAskedFor(t *testing.T, b *bench) {
	b.start(t, DiskSpec{"vda", "qcow2", 16 * mib}, DiskSpec{"vdb", "raw", 8 * mib},
		DiskSpec{"vdc", "qcow2", 8 * mib}, DiskSpec{"vdd", "qcow2", 8 * mib})
	for i, disk := range []string{"vda", "vdb", "vdc"} {
		b.GuestWrites(t, b.server, disk, byte(i+1), int64(i)*mib, mib)
	}
	backup := b.begin(t, "umbra-1", "", "vda", "vdb")
	want(t, "number of exports", len(backup.Disks), 2)
	want(t, "content of vda", content(t, backup, "vda"), "1@0")
	want(t, "content of vdb", content(t, backup, "vdb"), "2@1")
	b.end(t)

	b.GuestWrites(t, b.server, "vdc", 5, 6*mib, mib)
	// vdc was not in the first job, so what changed on it is not known; vdb never tells.
	backup = b.begin(t, "umbra-2", "umbra-1", "vda", "vdb", "vdc")
	want(t, "changes of vda", dirty(t, backup, "vda"), "")
	want(t, "changes of vdb", dirty(t, backup, "vdb"), "untold")
	want(t, "changes of vdc", dirty(t, backup, "vdc"), "untold")
	want(t, "content of vdc", content(t, backup, "vdc"), "3@2 5@6")
	b.end(t)

	backup = b.begin(t, "", "", "vdb")
	want(t, "content of vdb alone", content(t, backup, "vdb"), "2@1")
	b.end(t)
	want(t, "checkpoints", b.checkpoints(t), "umbra-1 umbra-2")
}

func backupOfAServerThatIsOffIsNotRunning(t *testing.T, b *bench) {
	b.define(t)
	_, err := b.hypervisor.BeginBackup(t.Context(), b.request("umbra-1", ""))
	wantError(t, err, hypervisor.ErrNotRunning)
	b.end(t)
}

func backupOfAnotherUUIDIsNotFound(t *testing.T, b *bench) {
	b.start(t)
	request := b.request("umbra-1", "")
	request.UUID = "6d2a4b0e-8c55-4e3e-9d0a-4d2b7e0c9f11"
	_, err := b.hypervisor.BeginBackup(t.Context(), request)
	wantError(t, err, hypervisor.ErrNotFound)
	server, err := b.hypervisor.Server(t.Context(), b.server)
	must(t, err)
	request.UUID = server.UUID
	_, err = b.hypervisor.BeginBackup(t.Context(), request)
	must(t, err)
}

func backupOfAnUnknownDiskIsNotFound(t *testing.T, b *bench) {
	b.start(t)
	_, err := b.hypervisor.BeginBackup(t.Context(), b.request("umbra-1", "", "vda", "vdz"))
	wantError(t, err, hypervisor.ErrNotFound)
	if errors.Is(err, hypervisor.ErrCheckpointLost) {
		t.Errorf("a missing disk is taken for a lost checkpoint: %v", err)
	}
}

func leftOverJobIsReplaced(t *testing.T, b *bench) {
	b.start(t)
	b.begin(t, "umbra-1", "")
	b.GuestWrites(t, b.server, "vda", 4, 2*mib, mib)
	backup := b.begin(t, "umbra-2", "umbra-1")
	want(t, "changes", dirty(t, backup, "vda"), "2048+1024")
	want(t, "content", content(t, backup, "vda"), "4@2")
}

func foreignJobIsBusyAndNotEnded(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	b.BeginForeignBackup(t, b.server, "foreign-1")
	for range 2 {
		_, err := b.hypervisor.BeginBackup(t.Context(), b.request("umbra-2", "umbra-1"))
		wantError(t, err, hypervisor.ErrBackupBusy)
		b.end(t)
	}
	b.EndForeignBackup(t, b.server)
	b.GuestWrites(t, b.server, "vda", 1, 0, mib)
	backup := b.begin(t, "umbra-2", "umbra-1")
	want(t, "changes", dirty(t, backup, "vda"), "0+1024")
}

func endBackupMayBeRepeatedAndLeavesNothing(t *testing.T, b *bench) {
	b.start(t)
	b.end(t)
	other := b.runDir + "/of-somebody-else"
	must(t, os.WriteFile(other, []byte("x"), 0o600))
	b.begin(t, "umbra-1", "")
	for range 2 {
		b.end(t)
	}
	entries, err := os.ReadDir(b.runDir)
	must(t, err)
	want(t, "files left", len(entries), 1)
	must(t, os.RemoveAll(b.runDir))
	b.end(t)
}

func freezeWithoutAnAgent(t *testing.T, b *bench) {
	b.start(t)
	request := b.request("umbra-1", "")
	request.FreezeBudget = 2 * time.Second
	backup, err := b.hypervisor.BeginBackup(t.Context(), request)
	must(t, err)
	want(t, "frozen", backup.Frozen, false)
	wantError(t, backup.FreezeError, hypervisor.ErrAgent)
	want(t, "content", content(t, backup, "vda"), "")
	wantError(t, b.hypervisor.AgentPing(t.Context(), b.server), hypervisor.ErrAgent)
}
