package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/umbra-dr/umbra/pkg/lab/process"
)

// Machine is one of the lab's computers.
type Machine struct {
	Name      string // control, main or shadow
	Namespace string // its network namespace, as `ip netns` knows it
	Address   string // on the lab's bridge
	Dir       string // its files; in there, run is what the machine sees as /run

	lab    *Lab
	mounts []mount
}

// mount puts a folder of the machine's, relative to its Dir, over a folder of the computer's.
type mount struct{ from, over string }

func (l *Lab) machine(name, address string) *Machine {
	return &Machine{
		Name: name, Namespace: l.config.Name + "-" + name, Address: address,
		Dir: filepath.Join(l.config.Dir, name), lab: l,
		mounts: []mount{{"run", "/run"}},
	}
}

// ErrPoweredOff says that the machine was killed or never booted.
var ErrPoweredOff = errors.New("the machine is powered off")

// Path returns where the computer sees the file that the machine sees at path.
func (m *Machine) Path(path string) string {
	for _, mount := range m.mounts {
		if rest, ok := strings.CutPrefix(path, mount.over+"/"); ok {
			return filepath.Join(m.Dir, mount.from, rest)
		}
	}
	return path
}

// Alive says whether the machine has power.
func (m *Machine) Alive() bool { return m.first().Alive() }

// first is the machine's first process: when it ends, the kernel kills every other one.
func (m *Machine) first() process.Identity { return m.lab.state.Machines[m.Name] }

// firstScript is what the first process does: wait until it has been recorded, change what the machine
// sees of the file system, say so, and then collect orphans for as long as the machine runs. Its
// arguments are an empty folder, "kvm" if guests are to run on it, and pairs of folders.
//
// The machine gets a /dev of its own. It has /dev/kvm only where that works, and then for QEMU's user
// too: a libvirt that finds it, but not usable, looks into QEMU anew at every step.
const firstScript = `set -e
read -r recorded
mount --make-rprivate /
mount -t sysfs sysfs /sys
mount -t proc proc /proc
dev=$1 accelerator=$2; shift 2
mount -t tmpfs -o mode=755,size=1m dev "$dev"
mkdir "$dev/net" "$dev/pts" "$dev/shm"
for node in null zero full random urandom tty net/tun; do cp -a "/dev/$node" "$dev/$node"; done
if [ "$accelerator" = kvm ]; then cp -a /dev/kvm "$dev/kvm"; chmod 666 "$dev/kvm"; fi
mount --bind /dev/pts "$dev/pts"
mount -t tmpfs -o mode=1777 shm "$dev/shm"
ln -s pts/ptmx "$dev/ptmx"
ln -s /proc/self/fd "$dev/fd"
for std in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${std#*:}" "$dev/${std%:*}"; done
mount --rbind "$dev" /dev
while [ $# -gt 0 ]; do mount --bind "$1" "$2"; shift 2; done
echo ready
exec >/dev/null </dev/null
sleep infinity & wait`

// powerOn starts the machine's first process. Like a real computer's, its /run is empty then.
func (m *Machine) powerOn(ctx context.Context) error {
	// The first to ask makes the trial, which may have to fetch a kernel before. That is no part of the step.
	accelerator, err := m.lab.Accelerator(ctx)
	if err != nil {
		return fmt.Errorf("power on %s: %w", m.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := os.RemoveAll(filepath.Join(m.Dir, "run")); err != nil {
		return fmt.Errorf("power on %s: %w", m.Name, err)
	}
	dev := filepath.Join(m.Dir, "dev")
	if err := os.MkdirAll(dev, 0o755); err != nil {
		return fmt.Errorf("power on %s: %w", m.Name, err)
	}
	args := []string{"--net=" + filepath.Join(namespaces, m.Namespace), "--", "sh", "-c", firstScript, "machine", dev, string(accelerator)}
	for _, mount := range m.mounts {
		from := filepath.Join(m.Dir, mount.from)
		if err := os.MkdirAll(from, 0o755); err != nil {
			return fmt.Errorf("power on %s: %w", m.Name, err)
		}
		args = append(args, from, mount.over)
	}
	if err := m.startFirst(ctx, exec.Command("nsenter", args...)); err != nil {
		return fmt.Errorf("power on %s: %w", m.Name, err)
	}
	return nil
}

func (m *Machine) startFirst(ctx context.Context, first *exec.Cmd) error {
	complaints, err := os.Create(filepath.Join(m.Dir, "boot.log"))
	if err != nil {
		return err
	}
	defer func() { _ = complaints.Close() }() // the machine has its own descriptor
	goIn, goOut, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = goOut.Close() }() // if it was not told to go on, it gives up now
	readyIn, readyOut, err := os.Pipe()
	if err != nil {
		return errors.Join(err, goIn.Close())
	}
	defer func() { _ = readyIn.Close() }() // read only
	first.Stdin, first.Stdout, first.Stderr = goIn, readyOut, complaints
	first.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Setsid: true}
	err = errors.Join(first.Start(), goIn.Close(), readyOut.Close())
	if err != nil {
		return err
	}
	id, err := process.Identify(first.Process.Pid)
	if err != nil {
		return err
	}
	if err := m.lab.state.recordMachine(m.Name, id); err != nil {
		return err
	}
	if _, err := io.WriteString(goOut, "recorded\n"); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = id.Kill(context.WithoutCancel(ctx)) })
	defer stop()
	told, err := io.ReadAll(readyIn)
	if err != nil || string(told) != "ready\n" {
		complaint, _ := os.ReadFile(complaints.Name())
		return fmt.Errorf("its first process gave up: %w", errors.Join(ctx.Err(), err, errors.New(strings.TrimSpace(string(complaint)))))
	}
	return nil
}

// powerOff ends every process of the machine at the same instant and returns when all are gone.
func (m *Machine) powerOff(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	if err := m.first().Kill(ctx); err != nil {
		return fmt.Errorf("power off %s: %w", m.Name, err)
	}
	return nil
}

// Command returns a command that runs on the machine, not yet started. When ctx ends it is killed, with
// what it started; the error ErrPoweredOff comes from starting it.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	first := m.first()
	enter := []string{"-t", strconv.Itoa(first.PID), "-m", "-n", "-p", "--", name}
	command := exec.CommandContext(ctx, "nsenter", append(enter, args...)...)
	if !first.Alive() {
		command.Err = fmt.Errorf("%s: %w", m.Name, ErrPoweredOff)
	}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	return command
}
