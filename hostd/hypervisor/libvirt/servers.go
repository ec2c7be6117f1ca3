package libvirt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

const bytesPerKiB = 1024

// Servers lists all servers, active or not, in the order of libvirt. One that disappears meanwhile is left out.
func (h *Hypervisor) Servers(ctx context.Context) ([]hypervisor.Server, error) {
	domains, err := ask(ctx, h, "list the servers", func(l *rpc.Libvirt) ([]rpc.Domain, error) {
		domains, _, err := l.ConnectListAllDomains(1, 0)
		return domains, err
	})
	if err != nil {
		return nil, err
	}
	servers := make([]hypervisor.Server, 0, len(domains))
	for _, dom := range domains {
		server, err := h.describe(ctx, dom)
		if errors.Is(err, hypervisor.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// Server gets one server by name, or hypervisor.ErrNotFound.
func (h *Hypervisor) Server(ctx context.Context, name string) (hypervisor.Server, error) {
	dom, err := h.domain(ctx, name, "")
	if err != nil {
		return hypervisor.Server{}, err
	}
	return h.describe(ctx, dom)
}

func (h *Hypervisor) describe(ctx context.Context, dom rpc.Domain) (hypervisor.Server, error) {
	server := hypervisor.Server{Name: dom.Name, UUID: uuid.UUID(dom.UUID).String()}
	err := h.call(ctx, fmt.Sprintf("get the state of server %q", dom.Name), func(l *rpc.Libvirt) error {
		state, memoryKiB, _, cpus, _, err := l.DomainGetInfo(dom)
		if err != nil {
			return err
		}
		server.Power = powerOf(rpc.DomainState(state))
		server.MemoryBytes = int64(memoryKiB) * bytesPerKiB
		server.CPUs = int(cpus)
		autostart, err := l.DomainGetAutostart(dom)
		server.Autostart = autostart != 0
		// A server that is not defined, only running, has no autostart.
		if code(err) == rpc.ErrOperationInvalid {
			return nil
		}
		return err
	})
	if err != nil {
		return hypervisor.Server{}, err
	}
	definition, err := h.definition(ctx, dom, 0)
	if err != nil {
		return hypervisor.Server{}, err
	}
	server.Disks = disksOf(definition)
	if slices.ContainsFunc(server.Disks, func(d hypervisor.Disk) bool { return d.SizeBytes == 0 }) {
		if err := h.addSizes(ctx, dom, server.Disks); err != nil {
			return hypervisor.Server{}, err
		}
	}
	// The definition of what runs names the bridge of a network that has one, and not the network.
	lasting, err := h.definition(ctx, dom, rpc.DomainXMLInactive)
	if err != nil {
		return hypervisor.Server{}, err
	}
	server.Networks = networksOf(lasting)
	return server, nil
}

// sizesTimeout bounds how long a server whose QEMU does not answer may hold up the others.
const sizesTimeout = 2 * time.Second

// addSizes asks for the sizes that the images do not tell. They stay 0 for a server that is busy or does not answer.
func (h *Hypervisor) addSizes(ctx context.Context, dom rpc.Domain, disks []hypervisor.Disk) error {
	bounded, cancel := context.WithTimeout(ctx, sizesTimeout)
	defer cancel()
	what := fmt.Sprintf("get the disk sizes of server %q", dom.Name)
	records, err := ask(bounded, h, what, func(l *rpc.Libvirt) ([]rpc.DomainStatsRecord, error) {
		return l.ConnectGetAllDomainStats([]rpc.Domain{dom}, uint32(rpc.DomainStatsBlock),
			uint32(rpc.ConnectGetAllDomainsStatsNowait))
	})
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		telemetry.From(ctx, h.log).WarnContext(ctx, "server does not tell the sizes of its disks", "server", dom.Name, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	sizes := sizesIn(records)
	for i := range disks {
		if disks[i].SizeBytes == 0 {
			disks[i].SizeBytes = sizes[disks[i].Target]
		}
	}
	return nil
}

// sizesIn reads the virtual sizes of disks, by target name, from statistics such as block.0.name and block.0.capacity.
func sizesIn(records []rpc.DomainStatsRecord) map[string]int64 {
	names, sizes := map[string]string{}, map[string]int64{}
	for _, record := range records {
		for _, param := range record.Params {
			rest, ok := strings.CutPrefix(param.Field, "block.")
			if !ok {
				continue
			}
			index, field, _ := strings.Cut(rest, ".")
			switch value := param.Value.I.(type) {
			case string:
				if field == "name" {
					names[index] = value
				}
			case uint64:
				if field == "capacity" {
					sizes[names[index]] = int64(value)
				}
			}
		}
	}
	return sizes
}

// networksOf are libvirt's networks. A bridge of the host that a server is attached to directly is none.
func networksOf(definition *libvirtxml.Domain) []string {
	if definition.Devices == nil {
		return nil
	}
	var names []string
	for i := range definition.Devices.Interfaces {
		source := definition.Devices.Interfaces[i].Source
		if source == nil || source.Network == nil {
			continue
		}
		if name := source.Network.Network; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
