package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNotPossibleHere says that this computer or this user cannot run a lab; the message says why.
var ErrNotPossibleHere = errors.New("the lab cannot run here")

// tools are the commands a lab runs.
var tools = []string{
	"ip", "nsenter", "mount", "libvirtd", "virsh", "qemu-img", "qemu-system-x86_64",
	"apt-get", "apt-cache", "dpkg", "depmod", "modprobe", "cpio", "mkfs.fat", "mcopy", "syslinux", "sfdisk",
}

// socketPathBytesMax is what the kernel allows for the path of a unix socket, with its final zero.
const socketPathBytesMax = 108

func checkRequirements(config Config) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: it needs root, to make namespaces", ErrNotPossibleHere)
	}
	var missing []string
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, tool)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: not found: %s; deploy/install-packages.sh installs what is needed",
			ErrNotPossibleHere, strings.Join(missing, ", "))
	}
	longest := filepath.Join(config.Dir, "shadow", libvirtSocket)
	if len(longest) >= socketPathBytesMax {
		return fmt.Errorf("%w: the path %s is too long for a socket, choose a shorter folder", ErrNotPossibleHere, longest)
	}
	return checkTraversable(config.Dir)
}

// checkTraversable sees that users other than root can reach the folder, since QEMU is one of them.
func checkTraversable(dir string) error {
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("folder of the lab: %w", err)
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf("%w: the hypervisor's user must be able to pass through %s (chmod o+x)", ErrNotPossibleHere, dir)
		}
	}
	return nil
}
