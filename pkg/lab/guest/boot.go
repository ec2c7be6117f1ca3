package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	sectorBytes = 512
	bootBegin   = 1 * MiB               // where the boot partition begins on a disk
	bootBytes   = 31 * MiB              // room for the kernel, the guest's program and its modules
	dataBegin   = bootBegin + bootBytes // where the ledger begins on the first disk

	masterBootRecord = "/usr/lib/SYSLINUX/mbr.bin"

	// fixedCommandLine is the part of the kernel's command line that all guests share: everything goes to
	// the serial port, and what costs time at boot without helping a test is off.
	fixedCommandLine = "console=ttyS0,115200 quiet panic=-1 tsc=reliable mitigations=off no_timer_check audit=0 random.trust_cpu=on"
)

// modules are what a guest needs to see its disks, its network interface and its power button.
var modules = []string{"virtio_pci", "virtio_blk", "virtio_net", "button", "evdev"}

// makeBoot makes the FAT partition that boots kernel with initBinary as its only process.
func (c *Cache) makeBoot(ctx context.Context, k kernel, initBinary, path string) error {
	scratch, err := os.MkdirTemp(c.dir, "boot-")
	if err != nil {
		return fmt.Errorf("make room for the boot partition: %w", err)
	}
	defer func() { _ = os.RemoveAll(scratch) }() // what is left there is of no use to anybody
	initramfs := filepath.Join(scratch, "initramfs")
	if err := makeInitramfs(ctx, k, initBinary, filepath.Join(scratch, "tree"), initramfs); err != nil {
		return fmt.Errorf("make the guest's initramfs: %w", err)
	}
	partition := filepath.Join(scratch, "partition")
	if err := os.WriteFile(partition, nil, 0o644); err != nil {
		return fmt.Errorf("make the boot partition: %w", err)
	}
	if err := os.Truncate(partition, bootBytes); err != nil {
		return fmt.Errorf("make the boot partition: %w", err)
	}
	for _, step := range [][]string{
		{"mkfs.fat", "-F", "16", "-h", fmt.Sprint(bootBegin / sectorBytes), "-n", "UMBRA", partition},
		{"mcopy", "-i", partition, k.image, "::vmlinuz"},
		{"mcopy", "-i", partition, initramfs, "::initrd"},
		{"syslinux", "--install", partition},
	} {
		if _, err := run(ctx, scratch, step[0], step[1:]...); err != nil {
			return fmt.Errorf("make the boot partition: %w", err)
		}
	}
	if err := os.Rename(partition, path); err != nil {
		return fmt.Errorf("keep the boot partition: %w", err)
	}
	return nil
}

// makeInitramfs packs the guest's program, its modules and their order.
func makeInitramfs(ctx context.Context, k kernel, initBinary, tree, path string) error {
	if err := os.MkdirAll(filepath.Join(tree, "modules"), 0o755); err != nil {
		return err
	}
	if err := copyFile(initBinary, filepath.Join(tree, "init"), 0o755); err != nil {
		return err
	}
	files, err := k.modulesFor(ctx, modules)
	if err != nil {
		return err
	}
	members := []string{"init", "modules", "modules/order"}
	var order strings.Builder
	for _, file := range files {
		name := filepath.Base(file)
		if err := copyFile(file, filepath.Join(tree, "modules", name), 0o644); err != nil {
			return err
		}
		members = append(members, "modules/"+name)
		order.WriteString(name + "\n")
	}
	if err := os.WriteFile(filepath.Join(tree, "modules", "order"), []byte(order.String()), 0o644); err != nil {
		return err
	}
	archive, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }() // cpio wrote it, and says whether that went well
	pack := exec.CommandContext(ctx, "cpio", "--create", "--quiet", "--format=newc", "--owner=0:0", "--reproducible")
	pack.Stdin = strings.NewReader(strings.Join(members, "\n") + "\n")
	pack.Stdout = archive
	pack.Stderr = os.Stderr
	pack.Dir = tree
	if err := pack.Run(); err != nil {
		return fmt.Errorf("cpio: %w", err)
	}
	return nil
}

func copyFile(from, to string, mode os.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }() // read only
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(target, source); err != nil {
		_ = target.Close() // the copy has failed already
		return err
	}
	return target.Close()
}
