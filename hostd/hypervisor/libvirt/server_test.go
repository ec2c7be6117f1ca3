package libvirt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/hypervisor/hypervisortest"
	"github.com/umbra-dr/umbra/pkg/lab"
)

func (w *world) define(t *testing.T, name, xml string) {
	t.Helper()
	must(t, w.h.Define(t.Context(), xml))
	t.Cleanup(func() {
		ctx, cancel := cleanup()
		defer cancel()
		must(t, w.h.Destroy(ctx, name))
		must(t, w.h.Undefine(ctx, name))
	})
}

// start starts a server with one disk and one interface.
func (w *world) start(t *testing.T, name string) {
	t.Helper()
	w.define(t, name, w.ServerXML(t, hypervisortest.ServerSpec{
		Name: name, Interfaces: 2, Disks: []hypervisortest.DiskSpec{{Target: "vda", Format: "qcow2", SizeBytes: 16 << 20}},
	}))
	must(t, w.h.Start(t.Context(), name))
}

func (w *world) request(t *testing.T, server, checkpoint string) hypervisor.BackupRequest {
	t.Helper()
	dir := filepath.Join(w.dir, "job-"+server)
	must(t, os.Mkdir(dir, 0o755))
	return hypervisor.BackupRequest{Server: server, Checkpoint: checkpoint, Disks: []string{"vda"}, RunDir: dir}
}

// The host "main" runs servers as root, "shadow" as libvirt's own user, as hosts do by default.
func jobFolderBelongsToTheServersUser(t *testing.T, w *world) {
	host, err := w.h.Host(t.Context())
	must(t, err)
	if byDefault := w.host.Name == "shadow"; byDefault != (host.ServerUID > 0 && host.ServerGID > 0) {
		t.Fatalf("servers run as %d:%d", host.ServerUID, host.ServerGID)
	}
	w.start(t, "owner")
	request := w.request(t, "owner", "umbra-1")
	_, err = w.h.BeginBackup(t.Context(), request)
	must(t, err)
	overlay := filepath.Join(w.dir, "owned.qcow2")
	must(t, w.h.CreateImage(t.Context(), overlay, 1<<20))
	for _, path := range []string{request.RunDir, overlay} {
		info, err := os.Stat(path)
		must(t, err)
		if owner := info.Sys().(*syscall.Stat_t); int(owner.Uid) != host.ServerUID || int(owner.Gid) != host.ServerGID {
			t.Errorf("%s belongs to %d:%d, want %d:%d", path, owner.Uid, owner.Gid, host.ServerUID, host.ServerGID)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has permissions %v, others can use it", path, info.Mode().Perm())
		}
	}
}

// The firmware looks for something to boot on the disk.
func whatTheFirmwareReadsIsCounted(t *testing.T, w *world) {
	w.start(t, "counted")
	patience := time.After(time.Minute)
	for tick := time.Tick(50 * time.Millisecond); ; {
		io, err := w.h.IOCounters(t.Context(), "counted")
		must(t, err)
		if io.Requests > 0 && io.Took > 0 {
			return
		}
		select {
		case <-tick:
		case <-patience:
			t.Fatalf("after a minute the counters are %+v", io)
		}
	}
}

func linksAreSetNowAndInTheDefinition(t *testing.T, w *world) {
	w.start(t, "links")
	down := func(inactive bool) int {
		args := []string{"dumpxml", "links"}
		if inactive {
			args = append(args, "--inactive")
		}
		return strings.Count(w.virsh(t, args...), "<link state='down'/>")
	}
	for _, up := range []bool{false, false, true, true, false} {
		must(t, w.h.SetLinks(t.Context(), "links", up))
		want := 2
		if up {
			want = 0
		}
		if live, config := down(false), down(true); live != want || config != want {
			t.Fatalf("after setting links up=%v, %d of 2 are down now and %d in the definition", up, live, config)
		}
	}
	networksAreNamedOnce(t, w, "links")
	must(t, w.h.Destroy(t.Context(), "links"))
	must(t, w.h.SetLinks(t.Context(), "links", true))
	if down(true) != 0 {
		t.Error("links of a server that is off stay down in the definition")
	}
	networksAreNamedOnce(t, w, "links")
}

// The lab's network has a bridge, which is all that the definition of a server that runs says about it.
func networksAreNamedOnce(t *testing.T, w *world, name string) {
	t.Helper()
	server, err := w.h.Server(t.Context(), name)
	must(t, err)
	if len(server.Networks) != 1 || server.Networks[0] != lab.GuestNetwork {
		t.Errorf("networks of a server that is %v are %v, want %q once", server.Power, server.Networks, lab.GuestNetwork)
	}
}

func definitionThatDoesNotFitIsIncompatible(t *testing.T, w *world) {
	fits := serverXML("fits", "")
	must(t, w.h.CheckDefinition(t.Context(), fits))
	for what, change := range map[string][2]string{
		"machine type": {"machine='pc'", "machine='pc-i440fx-99.9'"},
		"architecture": {"arch='x86_64'", "arch='z80'"},
		"hypervisor":   {"type='qemu'", "type='xen'"},
		"CPU model":    {"<devices>", "<cpu mode='custom' match='exact'><model>NoSuchCPU</model></cpu><devices>"},
		"CPU feature": {"<devices>", "<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model>" +
			"<feature policy='require' name='amx-tile'/></cpu><devices>"},
		"CPU mode": {"<devices>", "<cpu mode='host-passthrough'/><devices>"},
		"XML":      {"</domain>", ""},
	} {
		err := w.h.CheckDefinition(t.Context(), strings.Replace(fits, change[0], change[1], 1))
		if !errors.Is(err, hypervisor.ErrIncompatible) {
			t.Errorf("another %s: %v, want %v", what, err, hypervisor.ErrIncompatible)
		}
	}
	must(t, w.h.CheckDefinition(t.Context(), strings.Replace(fits, "<devices>",
		"<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu><devices>", 1)))
}

func oldImageFormatTracksNoChanges(t *testing.T, w *world) {
	path := filepath.Join(w.dir, "old.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=0.10", path, "8M")
	w.define(t, "old", serverXML("old", diskXML("vda", "qcow2", path, "")))
	must(t, w.h.Start(t.Context(), "old"))
	server, err := w.h.Server(t.Context(), "old")
	must(t, err)
	if server.Disks[0].TracksChanges {
		t.Error("a qcow2 image of version 2 cannot keep bitmaps")
	}
	backup, err := w.h.BeginBackup(t.Context(), w.request(t, "old", "umbra-1"))
	must(t, err)
	if backup.Disks["vda"].SizeBytes != 8<<20 || backup.Disks["vda"].Bitmap != "" {
		t.Errorf("the job is %+v", backup.Disks["vda"])
	}
}

func sizeThatTheImageDoesNotTellIsAskedFor(t *testing.T, w *world) {
	path := filepath.Join(w.dir, "other.vmdk")
	run(t, "qemu-img", "create", "-q", "-f", "vmdk", path, "8M")
	w.define(t, "other", serverXML("other", diskXML("vda", "vmdk", path, "")))
	must(t, w.h.Start(t.Context(), "other"))
	server, err := w.h.Server(t.Context(), "other")
	must(t, err)
	if disk := server.Disks[0]; disk.SizeBytes != 8<<20 || disk.TracksChanges {
		t.Errorf("the disk is %+v, want 8 MiB and no tracking of changes", disk)
	}
	backup, err := w.h.BeginBackup(t.Context(), w.request(t, "other", "umbra-1"))
	must(t, err)
	if size := backup.Disks["vda"].SizeBytes; size != 8<<20 {
		t.Errorf("the export has %d bytes", size)
	}
}

func diagnosticsTellTheServersStateAndNoSecrets(t *testing.T, w *world) {
	path := filepath.Join(w.dir, "diagnosed.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "8M")
	w.define(t, "diagnosed", serverXML("diagnosed", diskXML("vda", "qcow2", path, "")+
		`<graphics type='vnc' port='-1' autoport='yes' passwd='hunter2'/>`))
	must(t, w.h.Start(t.Context(), "diagnosed"))
	_, err := w.h.BeginBackup(t.Context(), w.request(t, "diagnosed", "umbra-77"))
	must(t, err)
	files, err := w.h.Diagnostics(t.Context(), "diagnosed")
	must(t, err)
	for file, word := range map[string]string{
		"domain-live.xml": "vda", "domain-inactive.xml": "vda", "statistics.txt": "block.0.name=vda",
		"checkpoints.txt": "umbra-77", "backup-job.xml": "umbra-nbd.sock", "qemu.log": "qemu-system",
	} {
		if !strings.Contains(string(files[file]), word) {
			t.Errorf("%s does not say %q: %.200s", file, word, files[file])
		}
	}
	for file, text := range files {
		if strings.Contains(string(text), "hunter2") {
			t.Errorf("%s holds a secret", file)
		}
	}
	if problems, ok := files["errors.txt"]; ok {
		t.Errorf("not all could be had: %s", problems)
	}
}

// A cycle's calls are not measured against a limit here; the figures are for whoever reads the log.
func cycleIsTimed(t *testing.T, w *world) {
	w.start(t, "timed")
	request := w.request(t, "timed", "")
	const cycles = 10
	var begin, end, remove time.Duration
	for i := range cycles {
		request.Since, request.Checkpoint = request.Checkpoint, fmt.Sprintf("umbra-%d", i)
		at := time.Now()
		_, err := w.h.BeginBackup(t.Context(), request)
		must(t, err)
		begin += time.Since(at)
		at = time.Now()
		must(t, w.h.EndBackup(t.Context(), "timed", request.RunDir))
		end += time.Since(at)
		if request.Since != "" {
			at = time.Now()
			must(t, w.h.DeleteCheckpoint(t.Context(), "timed", request.Since))
			remove += time.Since(at)
		}
	}
	names, err := w.h.Checkpoints(t.Context(), "timed")
	must(t, err)
	if len(names) != 1 || names[0] != request.Checkpoint {
		t.Errorf("checkpoints left: %v, want the newest", names)
	}
	t.Logf("begin %v, end %v, delete checkpoint %v", begin/cycles, end/cycles, remove/(cycles-1))
}

func brokenBitmapsAreNotLeftInTheImage(t *testing.T, w *world) {
	w.start(t, "broken")
	request := w.request(t, "broken", "umbra-1")
	for _, name := range []string{"umbra-1", "umbra-2"} {
		request.Checkpoint = name
		_, err := w.h.BeginBackup(t.Context(), request)
		must(t, err)
		must(t, w.h.EndBackup(t.Context(), "broken", request.RunDir))
	}
	must(t, w.h.Destroy(t.Context(), "broken"))
	const bitmap = "name: umbra-"
	image := filepath.Join(w.dir, "broken-vda")
	if info := run(t, "qemu-img", "info", image); strings.Count(info, bitmap) != 2 {
		t.Fatalf("the bitmaps are not in the image: %s", info)
	}
	must(t, w.h.Start(t.Context(), "broken"))
	w.Crash(t, "broken")
	must(t, w.h.Start(t.Context(), "broken"))
	for _, name := range []string{"umbra-1", "umbra-2"} {
		must(t, w.h.DeleteCheckpoint(t.Context(), "broken", name))
	}
	must(t, w.h.Destroy(t.Context(), "broken"))
	if info := run(t, "qemu-img", "info", image); strings.Contains(info, bitmap) {
		t.Errorf("bitmaps of deleted checkpoints stay in the image: %s", info)
	}
}
