package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// storeFSBytes is the size of the file system for a store: room for a minute of points of a small guest.
const storeFSBytes = 1 << 30

// mountSmall makes a file system of its own at dir, in a file beside it.
func mountSmall(ctx context.Context, dir string) error {
	image := dir + ".img"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making a folder for a store: %w", err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return fmt.Errorf("making a small file system: %w", err)
	}
	if err := os.Truncate(image, storeFSBytes); err != nil {
		return fmt.Errorf("making a small file system: %w", err)
	}
	for _, command := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
		}
	}
	return nil
}

func unmountSmall(dir string) error {
	if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	return nil
}

// fill takes all the space that the file system of the file has left.
func fill(path string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("filling a file system: %w", err)
	}
	defer func() { _ = file.Close() }() // nothing was written
	var size int64
	for piece := int64(1 << 30); piece >= 4096; {
		if err := unix.Fallocate(int(file.Fd()), 0, size, piece); err != nil {
			if !errors.Is(err, unix.ENOSPC) {
				return fmt.Errorf("filling a file system: %w", err)
			}
			piece /= 2
			continue
		}
		size += piece
	}
	return nil
}
