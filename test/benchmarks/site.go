package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/test/landscape"
)

// site is the whole product on the lab, for one row.
type site struct {
	*landscape.Landscape
	bench *bench
}

// onSite brings the landscape up for work, with more arguments for both hostds, and takes it down afterwards.
func (b *bench) onSite(ctx context.Context, work func(ctx context.Context, s *site) error, hostdArgs ...string) (err error) {
	scape, err := landscape.Up(ctx, landscape.Config{
		Name: "bench", Dir: b.path("lab"), CacheDir: filepath.Join(filepath.Dir(b.dir), "umbra-lab-cache"), Binaries: b.binaries,
		HostdArgs: append([]string{"--metrics=" + metricsAddress}, hostdArgs...),
	})
	if err != nil {
		return err
	}
	s := &site{Landscape: scape, bench: b}
	defer func() {
		if err != nil {
			s.keepLogs()
		}
		err = errors.Join(err, scape.Down(context.WithoutCancel(ctx)))
	}()
	return work(ctx, s)
}

// keepLogs saves the daemons' logs of a row that failed.
func (s *site) keepLogs() {
	for name, path := range map[string]string{
		"controlplane": s.ControlPlane.LogPath(), "main": s.Main.Hostd.LogPath(), "shadow": s.Shadow.Hostd.LogPath(),
	} {
		if text, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(s.bench.path("failed-"+name+".log"), text, 0o600) // a courtesy
		}
	}
}

// disk is where the file of a server's disk is, as this machine sees it.
func disk(h *lab.Host, server string) string {
	return filepath.Join(h.ImagesDir(), server+"-vda.qcow2")
}

// idleServer is a server that runs and does nothing: no operating system is on its disk. So all of the machine is for what is
// measured, and a disk of any size costs no boot.
const idleServer = `<domain type='qemu'>
  <name>%[1]s</name>
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <on_poweroff>destroy</on_poweroff>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' io='threads' discard='unmap'/>
      <source file='/var/lib/libvirt/images/%[1]s-vda.qcow2'/>
      <target dev='vda' bus='virtio'/>
      <alias name='ua-vda'/>
    </disk>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
`

// startIdle defines and starts an idle server on the main host and waits until it can be protected. Its disk must be there.
func (s *site) startIdle(ctx context.Context, name string) error {
	if err := s.boot(ctx, name); err != nil {
		return err
	}
	return s.waitListed(ctx, name)
}

// boot defines and starts an idle server on the main host.
func (s *site) boot(ctx context.Context, name string) error {
	file := filepath.Join(s.Main.Dir, name+".xml")
	if err := os.WriteFile(file, fmt.Appendf(nil, idleServer, name), 0o600); err != nil {
		return err
	}
	if _, err := s.Main.Virsh(ctx, "define", file); err != nil {
		return err
	}
	_, err := s.Main.Virsh(ctx, "start", name)
	return err
}

// waitListed waits until the main host's inventory lists a server: the control plane protects no other.
func (s *site) waitListed(ctx context.Context, name string) error {
	return s.WaitHost(ctx, landscape.MainHost, func(h *umbrav1.Host) bool {
		for _, one := range h.GetServers() {
			if one.GetName() == name {
				return true
			}
		}
		return false
	})
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
