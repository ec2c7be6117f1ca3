package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Host is a machine with a libvirt of its own.
type Host struct {
	*Machine

	Libvirtd *Service
	Hostd    *Service

	qemuUser qemuUser
}

// libvirtSocket is the socket of a host's libvirt, relative to the host's folder. On the host it is
// the ordinary one.
const libvirtSocket = "run/libvirt/libvirt-sock"

// imagesDir is where the disks of a host's guests lie, as the host sees it.
const imagesDir = "/var/lib/libvirt/images"

func (l *Lab) host(name, address string, user qemuUser) *Host {
	h := &Host{Machine: l.machine(name, address), qemuUser: user}
	h.mounts = append(h.mounts,
		mount{"etc", "/etc/libvirt"},
		mount{"lib", "/var/lib/libvirt"},
		mount{"log", "/var/log/libvirt"},
		mount{"cache", "/var/cache/libvirt"},
	)
	h.Libvirtd = h.service("libvirtd", Program{
		Path: "libvirtd", Args: []string{"--config", "/etc/libvirt/libvirtd.conf", "--pid-file", "/run/libvirt/libvirtd.pid"},
	})
	h.Hostd = h.service("hostd", l.config.Hostd)
	return h
}

// LibvirtSocket is the path at which processes of the computer itself, a test for example, reach the
// host's libvirt.
func (h *Host) LibvirtSocket() string { return filepath.Join(h.Dir, libvirtSocket) }

// ImagesDir is where the disks of the host's guests lie, as the computer sees it.
func (h *Host) ImagesDir() string { return h.Path(imagesDir) }

// virshTimeout bounds one call of virsh.
const virshTimeout = 2 * time.Minute

// Virsh runs virsh on the host, for at most two minutes, and returns what it printed.
func (h *Host) Virsh(ctx context.Context, args ...string) (string, error) {
	return h.virsh(ctx, "", args...)
}

func (h *Host) virsh(ctx context.Context, input string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, virshTimeout)
	defer cancel()
	command := h.Command(ctx, "virsh", append([]string{"-q", "-c", "qemu:///system"}, args...)...)
	var out, complaint bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = strings.NewReader(input), &out, &complaint
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("host %s: virsh %s: %w: %s", h.Name, strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// Kill is a host failure: every process of the host ends at the same instant, and it is off the network.
// What its QEMUs had written, flushed or not, is in its images; only what they held back is lost.
func (h *Host) Kill(ctx context.Context) error {
	return errors.Join(h.SetLink(ctx, false), h.powerOff(ctx))
}

// Revive boots a host that was killed: network, libvirt and hostd, if one is configured. Its guests stay
// off, as nothing of the lab's starts them.
func (h *Host) Revive(ctx context.Context) error {
	if h.Alive() {
		return fmt.Errorf("revive host %s: it is running", h.Name)
	}
	if err := h.SetLink(ctx, true); err != nil {
		return err
	}
	if err := h.boot(ctx); err != nil {
		return err
	}
	return h.ready(ctx)
}

// boot gives the host power and starts its libvirt.
func (h *Host) boot(ctx context.Context) error {
	if err := h.forgetOwners(); err != nil {
		return err
	}
	if err := h.powerOn(ctx); err != nil {
		return err
	}
	// Systemd makes this folder on a real host.
	if err := os.MkdirAll(filepath.Dir(h.LibvirtSocket()), 0o755); err != nil {
		return fmt.Errorf("boot host %s: %w", h.Name, err)
	}
	return h.Libvirtd.Start(ctx)
}

// ready waits until the host's libvirt answers, then starts hostd.
func (h *Host) ready(ctx context.Context) error {
	if err := h.WaitLibvirt(ctx); err != nil {
		return err
	}
	if !h.Hostd.Configured() {
		return nil
	}
	return h.Hostd.Start(ctx)
}

// libvirtPoll is how often libvirt is asked for what it does not announce: between its socket's appearing
// and its listening, for example, there is nothing that could be waited for.
const libvirtPoll = 10 * time.Millisecond

// WaitLibvirt waits until the host's libvirt takes connections, or says why it never will.
func (h *Host) WaitLibvirt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	beat := time.NewTicker(libvirtPoll)
	defer beat.Stop()
	for {
		connection, err := net.Dial("unix", h.LibvirtSocket())
		if err == nil {
			return connection.Close()
		}
		if !h.Libvirtd.Running() {
			log, _ := os.ReadFile(h.Libvirtd.LogPath())
			return fmt.Errorf("host %s: libvirt did not start: %s", h.Name, log[max(0, len(log)-2000):])
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("host %s: wait for libvirt: %w: %w", h.Name, ctx.Err(), err)
		case <-beat.C:
		}
	}
}
