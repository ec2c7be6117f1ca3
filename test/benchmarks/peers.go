package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// copyTool is what a user has for a full copy: a command for an NBD address and an empty qcow2 image.
type copyTool struct {
	name    string
	command func(from, to string) []string
}

var copyTools = []copyTool{
	{"qemu-img convert -t none", func(from, to string) []string {
		return []string{"qemu-img", "convert", "-n", "-W", "-m", "8", "-t", "none", "-O", "qcow2", from, to}
	}},
	{"qemu-img convert", func(from, to string) []string {
		return []string{"qemu-img", "convert", "-n", "-W", "-m", "8", "-O", "qcow2", from, to}
	}},
	{"nbdcopy", func(from, to string) []string {
		return []string{"nbdcopy", "--flush", from, "--", "[", "qemu-nbd", "-f", "qcow2", to, "]"}
	}},
}

const exportPort = 10809 // of a backup job that serves the tools

// beginExport begins a backup job as the tools' users do: all of the disk, over TCP, since the copy is to lie on another host.
func (s *site) beginExport(ctx context.Context, server string) error {
	scratch := s.Main.Path("/run/export.qcow2")
	if err := os.RemoveAll(scratch); err != nil {
		return err
	}
	file := filepath.Join(s.Main.Dir, "export.xml")
	text := fmt.Sprintf(`<domainbackup mode='pull'><server transport='tcp' name='%s' port='%d'/>
<disks><disk name='vda' backup='yes' type='file'><scratch file='/run/export.qcow2'/></disk></disks></domainbackup>`, lab.MainAddress, exportPort)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := s.Main.Virsh(ctx, "backup-begin", server, file)
	return err
}
