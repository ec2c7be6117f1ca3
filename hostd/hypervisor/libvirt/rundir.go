package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The names of a job's files in its folder. The socket's name is also how a job is known to be Umbra's.
const (
	socketName    = "umbra-nbd.sock"
	scratchPrefix = "umbra-scratch-"
	scratchSuffix = ".qcow2"
)

const (
	runDirMode = 0o700
	// socketPathMax is what fits into an address of a unix socket.
	socketPathMax = 107
)

// prepareRunDir removes what an earlier job left in the folder and gives it to the user that servers run as, whose QEMU
// writes scratch files in it and may make the socket there.
func (h *Hypervisor) prepareRunDir(ctx context.Context, runDir string) error {
	if path := filepath.Join(runDir, socketName); len(path) > socketPathMax {
		return fmt.Errorf("path %q is longer than the %d bytes that a socket can have", path, socketPathMax)
	}
	if err := cleanRunDir(runDir); err != nil {
		return err
	}
	uid, gid, err := h.serverOwner(ctx)
	if err != nil {
		return fmt.Errorf("find out who must own %q: %w", runDir, err)
	}
	if err := os.Chmod(runDir, runDirMode); err != nil {
		return fmt.Errorf("prepare the folder of a backup job: %w", err)
	}
	if err := os.Chown(runDir, uid, gid); err != nil {
		return fmt.Errorf("give the folder of a backup job to the servers' user: %w", err)
	}
	return nil
}

// cleanRunDir removes the files of Umbra's jobs, and no others. A folder that is not there is clean.
func cleanRunDir(runDir string) error {
	entries, err := os.ReadDir(runDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clean the folder of a backup job: %w", err)
	}
	var failed []error
	for _, entry := range entries {
		name := entry.Name()
		scratch := strings.HasPrefix(name, scratchPrefix) && strings.HasSuffix(name, scratchSuffix)
		if name != socketName && !scratch {
			continue
		}
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, fmt.Errorf("clean the folder of a backup job: %w", err))
		}
	}
	return errors.Join(failed...)
}
