package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// allNUMACells asks for the sum over a host's memory cells.
const allNUMACells = -1

// Host describes the host. KVM is what libvirt says of it.
func (h *Hypervisor) Host(ctx context.Context) (hypervisor.Host, error) {
	var host hypervisor.Host
	err := h.call(ctx, "describe the host", func(l *rpc.Libvirt) error {
		libraryVersion, err := l.ConnectGetLibVersion()
		if err != nil {
			return err
		}
		hypervisorVersion, err := l.ConnectGetVersion()
		if err != nil {
			return err
		}
		_, _, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		if err != nil {
			return err
		}
		host.LibvirtVersion = version(libraryVersion)
		host.HypervisorVersion = "QEMU " + version(hypervisorVersion)
		host.CPUs = int(cpus)
		if host.MemoryBytes, host.MemoryFreeBytes, err = memory(l); err != nil {
			return err
		}
		networks, _, err := l.ConnectListAllNetworks(1, rpc.ConnectListNetworksActive)
		for _, network := range networks {
			host.Networks = append(host.Networks, network.Name)
		}
		return err
	})
	if err != nil {
		return hypervisor.Host{}, err
	}
	capabilities, err := h.capabilities(ctx)
	if err != nil {
		return hypervisor.Host{}, err
	}
	host.KVM = runsKVM(capabilities)
	host.ServerUID, host.ServerGID = owner(capabilities)
	h.owner.Store(&fileOwner{host.ServerUID, host.ServerGID})
	return host, nil
}

// memory is all of the host's and what servers could have. That includes buffers and cached file pages, which are given
// to whoever needs memory.
func memory(l *rpc.Libvirt) (total, free int64, err error) {
	// The first call tells how many figures must be asked for.
	_, count, err := l.NodeGetMemoryStats(0, allNUMACells, 0)
	if err != nil {
		return 0, 0, err
	}
	figures, _, err := l.NodeGetMemoryStats(count, allNUMACells, 0)
	if err != nil {
		return 0, 0, err
	}
	for _, figure := range figures {
		bytes := int64(figure.Value) * bytesPerKiB
		switch figure.Field {
		case "total":
			total = bytes
		case "free", "buffers", "cached":
			free += bytes
		}
	}
	return total, free, nil
}

func (h *Hypervisor) capabilities(ctx context.Context) (*libvirtxml.Caps, error) {
	text, err := ask(ctx, h, "get the host's capabilities", func(l *rpc.Libvirt) (string, error) {
		return l.ConnectGetCapabilities()
	})
	if err != nil {
		return nil, err
	}
	var capabilities libvirtxml.Caps
	if err := capabilities.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read the host's capabilities: %w", err)
	}
	return &capabilities, nil
}

func runsKVM(capabilities *libvirtxml.Caps) bool {
	if capabilities.Host.CPU == nil {
		return false
	}
	for _, guest := range capabilities.Guests {
		if guest.Arch.Name != capabilities.Host.CPU.Arch {
			continue
		}
		for _, domain := range guest.Arch.Domains {
			if domain.Type == "kvm" {
				return true
			}
		}
	}
	return false
}

const unknownOwner = -1

// owner is the user and group that servers run as, which libvirt names as the base label of its file-owner security
// model: "+64055:+64055", or names instead of numbers.
func owner(capabilities *libvirtxml.Caps) (uid, gid int) {
	for _, model := range capabilities.Host.SecModel {
		if model.Name != "dac" {
			continue
		}
		for _, label := range model.Labels {
			user, group, ok := strings.Cut(label.Value, ":")
			uid, userErr := strconv.Atoi(strings.TrimPrefix(user, "+"))
			gid, groupErr := strconv.Atoi(strings.TrimPrefix(group, "+"))
			if ok && errors.Join(userErr, groupErr) == nil {
				return uid, gid
			}
		}
	}
	return unknownOwner, unknownOwner
}

// fileOwner is the user and group of files for servers.
type fileOwner struct{ uid, gid int }

// serverOwner is who files for servers must belong to; -1 leaves an owner as it is, as for chown. libvirt is asked once,
// and again by Host: its configuration changes with its restart only.
func (h *Hypervisor) serverOwner(ctx context.Context) (uid, gid int, err error) {
	if known := h.owner.Load(); known != nil {
		return known.uid, known.gid, nil
	}
	capabilities, err := h.capabilities(ctx)
	if err != nil {
		return unknownOwner, unknownOwner, err
	}
	uid, gid = owner(capabilities)
	h.owner.Store(&fileOwner{uid, gid})
	return uid, gid, nil
}

// version writes libvirt's number of a version, 9000001, as 9.0.1.
func version(number uint64) string {
	return fmt.Sprintf("%d.%d.%d", number/1_000_000, number/1_000%1_000, number%1_000)
}
