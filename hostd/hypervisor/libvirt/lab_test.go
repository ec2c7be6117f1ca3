package libvirt_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor/hypervisortest"
	"github.com/umbra-dr/umbra/hostd/hypervisor/libvirt"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/process"
)

// world is one host of the lab with a hypervisor of its own.
type world struct {
	host *lab.Host
	dir  string
	h    *libvirt.Hypervisor
}

func newWorld(t *testing.T, l *lab.Lab, host *lab.Host) *world {
	t.Helper()
	dir, err := os.MkdirTemp(l.Dir(), "w")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	h := libvirt.New(libvirt.Config{Socket: host.LibvirtSocket(), LogDir: host.Path("/var/log/libvirt/qemu")})
	t.Cleanup(h.Close)
	return &world{host: host, dir: dir, h: h}
}

func (w *world) Hypervisor() hypervisortest.Hypervisor { return w.h }
func (w *world) Dir() string                           { return w.dir }

func (w *world) ServerXML(t *testing.T, spec hypervisortest.ServerSpec) string {
	t.Helper()
	var devices strings.Builder
	for _, disk := range spec.Disks {
		path := filepath.Join(w.dir, spec.Name+"-"+disk.Target)
		run(t, "qemu-img", "create", "-q", "-f", disk.Format, path, fmt.Sprint(disk.SizeBytes))
		devices.WriteString(diskXML(disk.Target, disk.Format, path, ""))
	}
	for i := range spec.Interfaces {
		fmt.Fprintf(&devices, `<interface type='network'><source network='%s'/><mac address='52:54:00:00:00:%02x'/><model type='virtio'/></interface>`,
			lab.GuestNetwork, i+1)
	}
	return serverXML(spec.Name, devices.String())
}

func diskXML(target, format, path, backing string) string {
	return fmt.Sprintf(`<disk type='file' device='disk'><driver name='qemu' type='%s'/><source file='%s'/>%s`+
		`<target dev='%s' bus='virtio'/><alias name='ua-%s'/></disk>`, format, path, backing, target, target)
}

// serverXML is a server that finds nothing to boot and sits in its firmware.
func serverXML(name, devices string) string {
	return fmt.Sprintf(`<domain type='qemu'><name>%s</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>`+
		`<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>`+
		`<devices>%s<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>`+
		`<memballoon model='none'/></devices></domain>`, name, devices)
}

func (w *world) GuestWrites(t *testing.T, server, disk string, value byte, offset, length int64) {
	t.Helper()
	command := fmt.Sprintf(`qemu-io -d /machine/peripheral/ua-%s/virtio-backend "write -P %d %d %d"`, disk, value, offset, length)
	// What qemu-io says when all is well goes to QEMU's log.
	if output := w.virsh(t, "qemu-monitor-command", server, "--hmp", command); output != "" {
		t.Fatalf("the guest of %s cannot write to %s: %s", server, disk, output)
	}
}

func (w *world) Crash(t *testing.T, server string) {
	t.Helper()
	qemu := w.qemu(t, server)
	must(t, qemu.Kill(t.Context()))
	// libvirt notices by itself, a moment later.
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(w.virsh(t, "domstate", server), "shut off"); {
		if time.Now().After(deadline) {
			t.Fatalf("libvirt has not noticed that %s crashed", server)
		}
	}
}

func (w *world) qemu(t *testing.T, server string) process.Identity {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(w.host.LibvirtSocket()), "qemu", server+".pid"))
	must(t, err)
	var number int
	_, err = fmt.Sscan(string(text), &number)
	must(t, err)
	return w.inHost(t, number)
}

func (w *world) libvirtd(t *testing.T) process.Identity {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(w.host.LibvirtSocket()), "libvirtd.pid"))
	must(t, err)
	var number int
	_, err = fmt.Sscan(string(text), &number)
	must(t, err)
	return w.inHost(t, number)
}

// inHost finds a process of the host by the number it has there.
func (w *world) inHost(t *testing.T, number int) process.Identity {
	t.Helper()
	output, err := w.host.Command(t.Context(), "sh", "-c", "readlink /proc/self/ns/pid").Output()
	must(t, err)
	space := strings.TrimSpace(string(output))
	entries, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	must(t, err)
	for _, entry := range entries {
		if link, _ := os.Readlink(entry); link != space {
			continue
		}
		var pid int
		_, err := fmt.Sscanf(entry, "/proc/%d/ns/pid", &pid)
		must(t, err)
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "NSpid:" && fields[len(fields)-1] == fmt.Sprint(number) {
				id, err := process.Identify(pid)
				must(t, err)
				return id
			}
		}
	}
	t.Fatalf("host %s has no process %d", w.host.Name, number)
	return process.Identity{}
}

func (w *world) BeginForeignBackup(t *testing.T, server, checkpoint string) {
	t.Helper()
	dir := filepath.Join(w.dir, "foreign-"+server)
	if err := os.Mkdir(dir, 0o755); err == nil {
		must(t, os.Chmod(dir, 0o777))
	}
	job := filepath.Join(dir, "job.xml")
	must(t, os.WriteFile(job, fmt.Appendf(nil, `<domainbackup mode='pull'><server transport='unix' socket='%s/s'/><disks>`+
		`<disk name='vda' backup='yes' type='file'><scratch file='%s/scratch'/></disk></disks></domainbackup>`, dir, dir), 0o644))
	point := filepath.Join(dir, "checkpoint.xml")
	must(t, os.WriteFile(point, fmt.Appendf(nil, `<domaincheckpoint><name>%s</name><disks><disk name='vda' checkpoint='bitmap'/>`+
		`</disks></domaincheckpoint>`, checkpoint), 0o644))
	w.virsh(t, "backup-begin", server, job, point)
}

func (w *world) EndForeignBackup(t *testing.T, server string) {
	t.Helper()
	w.virsh(t, "domjobabort", server)
	// The call returns before the job is gone.
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(w.virsh(t, "domjobinfo", server), "None"); {
		if time.Now().After(deadline) {
			t.Fatalf("the foreign job on %s does not end", server)
		}
	}
}

func (w *world) CheckpointNames(t *testing.T, server string) []string {
	t.Helper()
	return strings.Fields(w.virsh(t, "checkpoint-list", server, "--name"))
}

func (w *world) virsh(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	output, err := w.host.Virsh(ctx, args...)
	must(t, err)
	return output
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, output)
	}
	return string(output)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
