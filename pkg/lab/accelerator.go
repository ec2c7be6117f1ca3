package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/guest"
	"github.com/umbra-dr/umbra/pkg/lab/process"
)

// Accelerator is what guests run on.
type Accelerator string

// Accelerators. TCG is QEMU's own translation, which works everywhere and is several times slower.
const (
	KVM Accelerator = "kvm"
	TCG Accelerator = "tcg"
)

// probeTimeout bounds the trial of KVM, which hangs rather than fails on some nested machines.
const probeTimeout = 20 * time.Second

// Accelerator returns KVM where a guest has proved that it works, and TCG elsewhere. The trial is made once for each boot of the computer and remembered in the cache folder.
func (l *Lab) Accelerator(ctx context.Context) (Accelerator, error) {
	if l.config.Accelerator != "" {
		return l.config.Accelerator, nil
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("choose an accelerator: %w", err)
	}
	remembered := filepath.Join(l.config.CacheDir, "accelerator-"+strings.TrimSpace(string(boot)))
	if text, err := os.ReadFile(remembered); err == nil {
		return Accelerator(text), nil
	}
	if err := os.MkdirAll(l.config.CacheDir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache folder: %w", err)
	}
	chosen := TCG
	if _, err := os.Stat("/dev/kvm"); err == nil {
		works, err := l.probeKVM(ctx)
		if err != nil {
			return "", fmt.Errorf("choose an accelerator: %w", err)
		}
		if works {
			chosen = KVM
		}
	}
	// Another lab that starts at the same moment must not read half of a word.
	next := filepath.Join(l.config.CacheDir, "accelerator-of-"+l.config.Name)
	if err := os.WriteFile(next, []byte(chosen), 0o644); err != nil {
		return "", fmt.Errorf("remember the accelerator: %w", err)
	}
	if err := os.Rename(next, remembered); err != nil {
		return "", fmt.Errorf("remember the accelerator: %w", err)
	}
	return chosen, nil
}

// probeKVM boots a guest with KVM, without libvirt.
func (l *Lab) probeKVM(ctx context.Context) (bool, error) {
	dir, err := os.MkdirTemp(l.config.CacheDir, "probe-")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left there is of no use to anybody
	disk, log := filepath.Join(dir, "disk"), filepath.Join(dir, "console")
	spec := guest.Disks{Paths: []string{disk}, Sizes: []int64{guest.DiskBytesMin}, Format: guest.Raw, Settings: []string{"umbra.rate=0"}}
	if err := l.makeDisks(ctx, spec); err != nil {
		return false, err
	}
	qemu := exec.Command("qemu-system-x86_64", "-accel", "kvm", "-cpu", "max", "-m", "128", "-display", "none", "-nodefaults",
		"-serial", "file:"+log, "-drive", "file="+disk+",format=raw,if=virtio", "-no-reboot")
	qemu.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := qemu.Start(); err != nil {
		return false, err
	}
	id, err := process.Identify(qemu.Process.Pid)
	if errors.Is(err, process.ErrGone) {
		_ = qemu.Wait() // that it failed is known
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return boots(ctx, id, log), id.Kill(context.WithoutCancel(ctx))
}

// boots says whether a guest reaches its ledger before its QEMU ends and before the time is up.
func boots(ctx context.Context, qemu process.Identity, log string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		_ = qemu.Wait(ctx) // either way the trial is over
	}()
	_, err := console.Open(log).Wait(ctx, bootLine)
	cancel()
	<-ended
	return err == nil
}

var bootLine = regexp.MustCompile(`UMBRA-LEDGER boot [^\n]*\n`)

// cacheTimeout bounds the making of disks, which may begin with the download of a kernel.
const cacheTimeout = 5 * time.Minute

// makeDisks makes disks from the lab's cache, which is filled first if need be.
func (l *Lab) makeDisks(ctx context.Context, disks guest.Disks) (err error) {
	ctx, cancel := context.WithTimeout(ctx, cacheTimeout)
	defer cancel()
	cache, err := guest.OpenCache(ctx, l.config.CacheDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	program, err := cache.BuildInit(ctx)
	if err != nil {
		return err
	}
	boot, err := cache.Boot(ctx, program)
	if err != nil {
		return err
	}
	return boot.Make(ctx, disks)
}
