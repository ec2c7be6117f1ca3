package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ownerMarks begins the attributes in which libvirt keeps a file's former owner and its users. Libvirt
// ignores those that are older than the computer's last boot; a machine of the lab shares that boot, so
// its own boots must make them void.
const ownerMarks = "trusted.libvirt.security."

// attributeBytesMax bounds the list of a file's attributes that is looked at.
const attributeBytesMax = 64 << 10

// forgetOwners removes libvirt's marks from the host's files, as the reboot of a real host voids them.
func (h *Host) forgetOwners() error {
	for _, mount := range h.mounts {
		root := filepath.Join(h.Dir, mount.from)
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return removeMarks(path)
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove libvirt's marks from the files of %s: %w", h.Name, err)
		}
	}
	return nil
}

func removeMarks(path string) error {
	names := make([]byte, attributeBytesMax)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the attributes of %s: %w", path, err)
	}
	for name := range strings.SplitSeq(string(names[:n]), "\x00") {
		if !strings.HasPrefix(name, ownerMarks) {
			continue
		}
		if err := unix.Lremovexattr(path, name); err != nil {
			return fmt.Errorf("remove %s of %s: %w", name, path, err)
		}
	}
	return nil
}
