// Package hypervisortest is what every implementation of package hypervisor must keep to, as tests. It is run on real
// libvirt and on whatever stands in for it, so that a stand-in cannot drift away from what it stands in for.
package hypervisortest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// Hypervisor is what is tested: both roles at once, as libvirt has it.
type Hypervisor interface {
	hypervisor.Source
	hypervisor.Target
}

// World is a hypervisor host with the means to do what its users, its guests and its faults do.
type World interface {
	Hypervisor() Hypervisor
	// Dir is a folder below which the servers' user can reach whatever belongs to it.
	Dir() string
	// ServerXML is the definition of a server with these disks and interfaces, which need not boot anything. The
	// images exist when it returns.
	ServerXML(t *testing.T, spec ServerSpec) string
	// GuestWrites writes length bytes of the value from offset on, as the running server's guest would.
	GuestWrites(t *testing.T, server, disk string, value byte, offset, length int64)
	// Crash ends a running server without its being asked, as kill -9 does.
	Crash(t *testing.T, server string)
	// BeginForeignBackup begins a pull-mode job of another tool's, with a checkpoint of that name.
	BeginForeignBackup(t *testing.T, server, checkpoint string)
	// EndForeignBackup ends it.
	EndForeignBackup(t *testing.T, server string)
	// CheckpointNames are the names of all checkpoints of a server, foreign ones too.
	CheckpointNames(t *testing.T, server string) []string
}

// ServerSpec says what a server of a test is made of.
type ServerSpec struct {
	Name       string
	Disks      []DiskSpec
	Interfaces int
}

// DiskSpec is one disk of a ServerSpec.
type DiskSpec struct {
	Target    string // "vda"
	Format    string // "qcow2" or "raw"
	SizeBytes int64
}

const mib = 1 << 20

// Run runs the suite. Every test has servers of its own.
func Run(t *testing.T, world World) {
	tests := []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"UnknownServerIsNotFound", unknownServerIsNotFound},
		{"InventoryDescribesServersAndTheirDisks", inventoryDescribesServersAndTheirDisks},
		{"PowerCallsMayBeRepeated", powerCallsMayBeRepeated},
		{"SuspendAndResumeMayBeRepeated", suspendAndResumeMayBeRepeated},
		{"AutostartIsSetAndShown", autostartIsSetAndShown},
		{"IOIsCountedOfAServerThatRuns", ioIsCountedOfAServerThatRuns},
		{"ShutdownTakesThePowerAfterTheGrace", shutdownTakesThePowerAfterTheGrace},
		{"UndefinedServerIsGoneWithItsCheckpoints", undefinedServerIsGoneWithItsCheckpoints},
		{"FullBackupShowsTheMomentItWasBegun", fullBackupShowsTheMomentItWasBegun},
		{"IncrementalBackupNamesExactlyWhatChanged", incrementalBackupNamesExactlyWhatChanged},
		{"IncrementalBackupFromAnOlderCheckpointCoversAllSince", incrementalBackupFromAnOlderCheckpointCoversAllSince},
		{"BackupTakesAllDisksAtOnceAndOnlyThoseAskedFor", backupTakesAllDisksAtOnceAndOnlyThoseAskedFor},
		{"BackupOfAServerThatIsOffIsNotRunning", backupOfAServerThatIsOffIsNotRunning},
		{"BackupOfAnotherUUIDIsNotFound", backupOfAnotherUUIDIsNotFound},
		{"BackupOfAnUnknownDiskIsNotFound", backupOfAnUnknownDiskIsNotFound},
		{"BackupSinceAnUnknownCheckpointIsCheckpointLost", backupSinceAnUnknownCheckpointIsCheckpointLost},
		{"BackupAfterACrashIsCheckpointLostAndAFullOneWorks", backupAfterACrashIsCheckpointLost},
		{"CheckpointsSurviveAnOrderlyStop", checkpointsSurviveAnOrderlyStop},
		{"LeftOverJobIsReplaced", leftOverJobIsReplaced},
		{"ForeignJobIsBusyAndNotEnded", foreignJobIsBusyAndNotEnded},
		{"EndBackupMayBeRepeatedAndLeavesNothing", endBackupMayBeRepeatedAndLeavesNothing},
		{"CheckpointsAreListedOldestFirstWithoutForeignOnes", checkpointsAreListedOldestFirst},
		{"DeletingACheckpointKeepsTheOthersWorking", deletingACheckpointKeepsTheOthersWorking},
		{"BrokenCheckpointIsDeletedAllTheSame", brokenCheckpointIsDeleted},
		{"CheckpointOfAServerThatIsOffIsDeleted", checkpointOfAServerThatIsOffIsDeleted},
		{"BrokenCheckpointOfAServerThatIsOffIsDeleted", brokenCheckpointOfAServerThatIsOffIsDeleted},
		{"FreezeWithoutAnAgentYieldsABackupThatSaysSo", freezeWithoutAnAgent},
		{"NewImageIsEmptyPrivateAndNeverOverwritten", newImageIsEmptyPrivateAndNeverOverwritten},
		{"CopyTakesTheDisksPlaceOnlyWhenAsked", copyTakesTheDisksPlaceOnlyWhenAsked},
		{"CopyEndsWithTheRun", copyEndsWithTheRun},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.test(t, newBench(t, world)) })
	}
}

// bench is one test's place to work.
type bench struct {
	World
	hypervisor Hypervisor
	server     string
	runDir     string
}

var benches atomic.Int64

func newBench(t *testing.T, world World) *bench {
	t.Helper()
	name := fmt.Sprintf("s%d", benches.Add(1))
	b := &bench{World: world, hypervisor: world.Hypervisor(), server: name, runDir: filepath.Join(world.Dir(), "run-"+name)}
	if err := os.Mkdir(b.runDir, 0o700); err != nil {
		t.Fatal(err)
	}
	return b
}

// define defines the test's server, off, and removes it when the test ends.
func (b *bench) define(t *testing.T, disks ...DiskSpec) {
	t.Helper()
	if len(disks) == 0 {
		disks = []DiskSpec{{Target: "vda", Format: "qcow2", SizeBytes: 16 * mib}}
	}
	xml := b.ServerXML(t, ServerSpec{Name: b.server, Disks: disks, Interfaces: 1})
	must(t, b.hypervisor.Define(t.Context(), xml))
	t.Cleanup(func() {
		ctx := background(t)
		must(t, b.hypervisor.Destroy(ctx, b.server))
		must(t, b.hypervisor.Undefine(ctx, b.server))
	})
}

func (b *bench) start(t *testing.T, disks ...DiskSpec) {
	t.Helper()
	b.define(t, disks...)
	must(t, b.hypervisor.Start(t.Context(), b.server))
}

func (b *bench) request(checkpoint, since string, disks ...string) hypervisor.BackupRequest {
	if len(disks) == 0 {
		disks = []string{"vda"}
	}
	return hypervisor.BackupRequest{
		Server: b.server, Checkpoint: checkpoint, Since: since, Disks: disks, RunDir: b.runDir,
	}
}

func (b *bench) begin(t *testing.T, checkpoint, since string, disks ...string) hypervisor.Backup {
	t.Helper()
	backup, err := b.hypervisor.BeginBackup(t.Context(), b.request(checkpoint, since, disks...))
	must(t, err)
	return backup
}

func (b *bench) end(t *testing.T) {
	t.Helper()
	must(t, b.hypervisor.EndBackup(t.Context(), b.server, b.runDir))
}

// cycle is a backup job that nobody reads.
func (b *bench) cycle(t *testing.T, checkpoint, since string) {
	t.Helper()
	b.begin(t, checkpoint, since)
	b.end(t)
}

func (b *bench) checkpoints(t *testing.T) string {
	t.Helper()
	names, err := b.hypervisor.Checkpoints(t.Context(), b.server)
	must(t, err)
	return strings.Join(names, " ")
}

func (b *bench) wantPower(t *testing.T, power hypervisor.PowerState) {
	t.Helper()
	server, err := b.hypervisor.Server(t.Context(), b.server)
	must(t, err)
	want(t, "power", server.Power, power)
}
