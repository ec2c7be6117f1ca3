package hypervisortest

import (
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func unknownServerIsNotFound(t *testing.T, b *bench) {
	ctx := t.Context()
	_, err := b.hypervisor.Server(ctx, "nobody")
	wantError(t, err, hypervisor.ErrNotFound)
	_, err = b.hypervisor.ServerXML(ctx, "nobody")
	wantError(t, err, hypervisor.ErrNotFound)
	_, err = b.hypervisor.Checkpoints(ctx, "nobody")
	wantError(t, err, hypervisor.ErrNotFound)
	_, err = b.hypervisor.Diagnostics(ctx, "nobody")
	wantError(t, err, hypervisor.ErrNotFound)
	wantError(t, b.hypervisor.Start(ctx, "nobody"), hypervisor.ErrNotFound)
	wantError(t, b.hypervisor.SetAutostart(ctx, "nobody", true), hypervisor.ErrNotFound)
	wantError(t, b.hypervisor.SetLinks(ctx, "nobody", true), hypervisor.ErrNotFound)
	request := b.request("umbra-1", "")
	request.Server = "nobody"
	_, err = b.hypervisor.BeginBackup(ctx, request)
	wantError(t, err, hypervisor.ErrNotFound)
	must(t, b.hypervisor.EndBackup(ctx, "nobody", b.runDir))
	must(t, b.hypervisor.DeleteCheckpoint(ctx, "nobody", "umbra-1"))
	must(t, b.hypervisor.Shutdown(ctx, "nobody", 0))
	must(t, b.hypervisor.Destroy(ctx, "nobody"))
	must(t, b.hypervisor.Undefine(ctx, "nobody"))
}

func inventoryDescribesServersAndTheirDisks(t *testing.T, b *bench) {
	b.define(t, DiskSpec{"vda", "qcow2", 16 * mib}, DiskSpec{"vdb", "raw", 8 * mib})
	host, err := b.hypervisor.Host(t.Context())
	must(t, err)
	if host.CPUs < 1 || host.MemoryFreeBytes <= 0 || host.MemoryFreeBytes > host.MemoryBytes || host.LibvirtVersion == "" {
		t.Errorf("the host is not described: %+v", host)
	}
	for _, power := range []hypervisor.PowerState{hypervisor.PowerOff, hypervisor.PowerRunning} {
		server, err := b.hypervisor.Server(t.Context(), b.server)
		must(t, err)
		want(t, "power", server.Power, power)
		want(t, "number of disks", len(server.Disks), 2)
		first, second := server.Disks[0], server.Disks[1]
		want(t, "first disk", first.Target+" "+first.Format, "vda qcow2")
		want(t, "size of the first disk", first.SizeBytes, 16*mib)
		want(t, "first disk tracks changes", first.TracksChanges, true)
		want(t, "second disk", second.Target+" "+second.Format, "vdb raw")
		want(t, "size of the second disk", second.SizeBytes, 8*mib)
		want(t, "second disk tracks changes", second.TracksChanges, false)
		if server.UUID == "" || server.CPUs < 1 || server.MemoryBytes < mib {
			t.Errorf("the server is not described: %+v", server)
		}
		must(t, b.hypervisor.Start(t.Context(), b.server))
	}
	servers, err := b.hypervisor.Servers(t.Context())
	must(t, err)
	listed := 0
	for _, server := range servers {
		if server.Name == b.server {
			listed++
			want(t, "power in the list", server.Power, hypervisor.PowerRunning)
		}
	}
	want(t, "times the server is listed", listed, 1)
	xml, err := b.hypervisor.ServerXML(t.Context(), b.server)
	must(t, err)
	must(t, b.hypervisor.Define(t.Context(), xml))
	must(t, b.hypervisor.CheckDefinition(t.Context(), xml))
	files, err := b.hypervisor.Diagnostics(t.Context(), b.server)
	must(t, err)
	if len(files) == 0 {
		t.Error("there are no diagnostics")
	}
}

func powerCallsMayBeRepeated(t *testing.T, b *bench) {
	b.define(t)
	for range 2 {
		must(t, b.hypervisor.Start(t.Context(), b.server))
	}
	for range 2 {
		must(t, b.hypervisor.Destroy(t.Context(), b.server))
	}
	must(t, b.hypervisor.Shutdown(t.Context(), b.server, time.Hour))
	b.wantPower(t, hypervisor.PowerOff)
}

func suspendAndResumeMayBeRepeated(t *testing.T, b *bench) {
	b.define(t)
	wantError(t, b.hypervisor.Suspend(t.Context(), b.server), hypervisor.ErrNotRunning)
	wantError(t, b.hypervisor.Resume(t.Context(), b.server), hypervisor.ErrNotRunning)
	must(t, b.hypervisor.Start(t.Context(), b.server))
	for range 2 {
		must(t, b.hypervisor.Suspend(t.Context(), b.server))
		b.wantPower(t, hypervisor.PowerPaused)
	}
	for range 2 {
		must(t, b.hypervisor.Resume(t.Context(), b.server))
		b.wantPower(t, hypervisor.PowerRunning)
	}
}

func autostartIsSetAndShown(t *testing.T, b *bench) {
	b.define(t)
	for _, on := range []bool{true, true, false, false} {
		must(t, b.hypervisor.SetAutostart(t.Context(), b.server, on))
		server, err := b.hypervisor.Server(t.Context(), b.server)
		must(t, err)
		want(t, "autostart", server.Autostart, on)
	}
}

// No guest listens to the power button here, so the grace passes.
func shutdownTakesThePowerAfterTheGrace(t *testing.T, b *bench) {
	b.start(t)
	must(t, b.hypervisor.Shutdown(t.Context(), b.server, 50*time.Millisecond))
	b.wantPower(t, hypervisor.PowerOff)
}

func undefinedServerIsGoneWithItsCheckpoints(t *testing.T, b *bench) {
	b.start(t)
	b.cycle(t, "umbra-1", "")
	must(t, b.hypervisor.Destroy(t.Context(), b.server))
	for range 2 {
		must(t, b.hypervisor.Undefine(t.Context(), b.server))
	}
	_, err := b.hypervisor.Server(t.Context(), b.server)
	wantError(t, err, hypervisor.ErrNotFound)
	servers, err := b.hypervisor.Servers(t.Context())
	must(t, err)
	for _, server := range servers {
		if strings.EqualFold(server.Name, b.server) {
			t.Errorf("server %q is still listed", b.server)
		}
	}
}

func ioIsCountedOfAServerThatRuns(t *testing.T, b *bench) {
	_, err := b.hypervisor.IOCounters(t.Context(), "nobody")
	wantError(t, err, hypervisor.ErrNotFound)
	b.define(t)
	_, err = b.hypervisor.IOCounters(t.Context(), b.server)
	wantError(t, err, hypervisor.ErrNotRunning)
	must(t, b.hypervisor.Start(t.Context(), b.server))
	before, err := b.hypervisor.IOCounters(t.Context(), b.server)
	must(t, err)
	after, err := b.hypervisor.IOCounters(t.Context(), b.server)
	must(t, err)
	if before.Requests < 0 || after.Requests < before.Requests || after.Took < before.Took {
		t.Errorf("the counters went from %+v to %+v", before, after)
	}
}
