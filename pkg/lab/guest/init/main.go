// Command init is the first and only process of a guest of the lab. It loads the modules it needs, finds
// the ledger on the disks it was booted with, verifies it, says on the console what it found, and then
// writes records and announces each once it is durable, until the power button is pressed.
//
// It takes its settings from the kernel's command line:
//
//	umbra.rate=25            records a second; 0 writes none
//	umbra.announce=1         announce every so many records
//	umbra.measure=1          write without a pause and say every second how long the writes took
//	umbra.address=IP/BITS    give the first network interface this address and answer probes
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Println(ledger.Prefix + "error " + err.Error())
	}
	// The first process must not end: the kernel would panic and the message scroll away.
	powerOff()
}

func run(parent context.Context) error {
	settings, err := prepare()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	watchPowerButton(cancel)

	disks, err := findLedger()
	if err != nil {
		return err
	}
	readers := make([]io.ReaderAt, len(disks))
	writers := make([]ledger.Disk, len(disks))
	for i, disk := range disks {
		readers[i], writers[i] = disk, disk
	}
	report, err := ledger.Verify(readers, alignedMemory)
	if err != nil {
		return err
	}
	fmt.Println(report.Boot())
	keeper := &keeper{last: report.Last, settings: settings}
	if settings.address.IsValid() {
		if err := answerProbes(settings.address, keeper); err != nil {
			fmt.Println(ledger.Prefix + "no probes: " + err.Error())
		}
	}
	writer, err := ledger.NewWriter(writers, alignedMemory)
	if err != nil {
		return err
	}
	return keeper.keep(ctx, writer)
}

// prepare mounts what the kernel offers, loads modules and reads the settings.
func prepare() (settings, error) {
	for _, m := range []struct{ kind, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return settings{}, fmt.Errorf("make %s: %w", m.at, err)
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return settings{}, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if err := loadModules("/modules"); err != nil {
		return settings{}, err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return settings{}, fmt.Errorf("read the kernel's command line: %w", err)
	}
	return parseSettings(string(line))
}

func powerOff() {
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println(ledger.Prefix + "error power off: " + err.Error())
	}
	select {}
}
