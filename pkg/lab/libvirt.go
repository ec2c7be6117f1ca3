package lab

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
)

// qemuUser is whom a host's QEMU runs as.
type qemuUser int

const (
	qemuByDefaults qemuUser = iota // a user of its own, who is given the images; as libvirt comes
	qemuAsRoot
)

// common are the settings of QEMU's driver without which a second libvirt cannot run on one computer:
// there is one hierarchy of control groups, no log daemon per host, and /dev is the computer's.
const common = `stdio_handler = "file"
cgroup_controllers = []
namespaces = []
`

const asRoot = `user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
`

// noSecurityModule keeps a host from loading profiles into the computer's AppArmor.
const noSecurityModule = `security_driver = "none"
`

func (u qemuUser) settings() string {
	if u == qemuAsRoot {
		return common + asRoot
	}
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err == nil && strings.HasPrefix(string(enabled), "Y") {
		return common + noSecurityModule
	}
	return common
}

// network is what guests attach to: the bridge made with the host's namespace. Libvirt has nothing to
// set up for it, no address translation and no name server.
const network = `<network>
  <name>` + GuestNetwork + `</name>
  <forward mode='bridge'/>
  <bridge name='` + guestBridge + `'/>
</network>
`

// install writes the host's configuration of libvirt. The network starts with it.
func (h *Host) install() error {
	// Two libvirts on one computer would take its serial number for the identity of either.
	identity, err := uuid.NewRandomFromReader(rand.Reader)
	if err != nil {
		return fmt.Errorf("make an identity: %w", err)
	}
	daemon := fmt.Sprintf("host_uuid = %q\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n", identity)
	networks := h.Path("/etc/libvirt/qemu/networks")
	if err := os.MkdirAll(filepath.Join(networks, "autostart"), 0o755); err != nil {
		return fmt.Errorf("make the configuration: %w", err)
	}
	// Debian's packages make these two, and libvirt expects them.
	for _, dir := range []string{h.ImagesDir(), h.Path(guestLogs)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make the folders of libvirt: %w", err)
		}
	}
	for name, text := range map[string]string{
		h.Path("/etc/libvirt/libvirtd.conf"):         daemon,
		h.Path("/etc/libvirt/qemu.conf"):             h.qemuUser.settings(),
		filepath.Join(networks, GuestNetwork+".xml"): network,
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	name := GuestNetwork + ".xml"
	err = os.Symlink(filepath.Join("/etc/libvirt/qemu/networks", name), filepath.Join(networks, "autostart", name))
	if err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}
