// Package guest makes disks that really boot: a boot sector, a FAT partition with syslinux and Debian's
// cloud kernel, and a data partition with a ledger that the guest's only process keeps.
//
// It works on plain files, with no loop devices and no mounts, and leaves the machine's own kernel and
// boot alone. What is the same for every guest (the kernel's package, the boot partition) is made once
// and kept in a cache folder; a disk is then a matter of a fraction of a second.
//
// The functions run the tools of Debian's packages and may be used concurrently, except that two
// processes must not fill one cache folder at the same time without the lock that OpenCache takes.
package guest

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// MiB is the unit of disk sizes.
const MiB = 1 << 20

// run runs a tool and returns what it printed. Its complaint becomes part of the error.
func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	return finish(exec.CommandContext(ctx, name, args...), dir)
}

func finish(command *exec.Cmd, dir string) (string, error) {
	var complaint strings.Builder
	command.Dir = dir
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}
