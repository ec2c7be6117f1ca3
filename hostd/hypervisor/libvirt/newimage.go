package libvirt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

// imageMode lets nobody but the server's user read what the server writes.
const imageMode = 0o600

// CreateImage makes an empty qcow2 image of that virtual size, owned by the user that servers run as. It names no
// backing file: the server's XML does. An existing file is an error, fs.ErrExist. The image is durable when the call returns.
func (h *Hypervisor) CreateImage(ctx context.Context, path string, sizeBytes int64) error {
	uid, gid, err := h.serverOwner(ctx)
	if err != nil {
		return fmt.Errorf("find out who must own image %q: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, imageMode)
	if err != nil {
		return fmt.Errorf("create image: %w", err)
	}
	err = func() error {
		command := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "compat=1.1",
			path, strconv.FormatInt(sizeBytes, 10))
		if output, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("format image %q: %w: %s", path, err, output)
		}
		if err := os.Lchown(path, uid, gid); err != nil {
			return fmt.Errorf("give image to the servers' user: %w", err)
		}
		return file.Sync()
	}()
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
