package libvirt

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
)

// serversDir is where libvirt's QEMU driver keeps a folder for each server that runs.
const serversDir = "/var/lib/libvirt/qemu"

// socketDir is where a server's QEMU makes the socket of a backup job: in libvirt's own folder of that server, where AppArmor and
// SELinux let this QEMU make one, and no other server's. Where libvirt keeps none, or by so long a name that a socket does not
// fit, in the folder of the job.
func socketDir(servers string, dom rpc.Domain, runDir string) string {
	if own := folderOf(servers, dom); own != "" && len(filepath.Join(own, socketName)) <= socketPathMax {
		return own
	}
	return runDir
}

// folderOf is libvirt's folder of a server that runs, "domain-{id}-{name}" with the first 20 characters of its name
// (virDomainDefGetShortName, src/conf/domain_conf.c), or "". Folders of servers that ran when the host lost its power are
// still there, and ids begin at 1 again.
func folderOf(servers string, dom rpc.Domain) string {
	prefix := filepath.Join(servers, fmt.Sprintf("domain-%d-", dom.ID))
	folders, err := filepath.Glob(prefix + "*")
	if err != nil {
		return ""
	}
	found := ""
	for _, folder := range folders {
		info, err := os.Stat(folder)
		if err == nil && info.IsDir() && strings.HasPrefix(dom.Name, strings.TrimPrefix(folder, prefix)) && len(folder) > len(found) {
			found = folder
		}
	}
	return found
}
