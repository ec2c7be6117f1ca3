package simulated

import (
	"context"
	"fmt"
	"slices"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// Host is the description that the host was made with.
func (h *Hypervisor) Host(ctx context.Context) (hypervisor.Host, error) {
	leave, err := h.enter(ctx)
	if err != nil {
		return hypervisor.Host{}, err
	}
	defer leave()
	return h.host, nil
}

// Servers lists the servers in the order in which they were defined.
func (h *Hypervisor) Servers(ctx context.Context) ([]hypervisor.Server, error) {
	leave, err := h.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	servers := make([]hypervisor.Server, 0, len(h.order))
	for _, name := range h.order {
		servers = append(servers, h.servers[name].describe())
	}
	return servers, nil
}

// Server gets one server by name, or hypervisor.ErrNotFound.
func (h *Hypervisor) Server(ctx context.Context, name string) (found hypervisor.Server, err error) {
	err = h.on(ctx, name, func(s *server) error {
		found = s.describe()
		return nil
	})
	return found, err
}

func (s *server) describe() hypervisor.Server {
	described := hypervisor.Server{
		Name: s.definition.Name, UUID: s.definition.UUID, Power: s.power, Autostart: s.autostart, CPUs: 1,
	}
	if s.definition.VCPU != nil {
		described.CPUs = int(s.definition.VCPU.Value)
	}
	if s.definition.Memory != nil {
		described.MemoryBytes = bytesOf(s.definition.Memory.Value, s.definition.Memory.Unit)
	}
	for _, d := range s.disks {
		described.Disks = append(described.Disks, d.Disk)
	}
	for i := range s.definition.Devices.Interfaces {
		source := s.definition.Devices.Interfaces[i].Source
		if source != nil && source.Network != nil && !slices.Contains(described.Networks, source.Network.Network) {
			described.Networks = append(described.Networks, source.Network.Network)
		}
	}
	return described
}

func bytesOf(value uint, unit string) int64 {
	switch unit {
	case "MiB", "M":
		return int64(value) << 20
	case "GiB", "G":
		return int64(value) << 30
	case "b", "bytes":
		return int64(value)
	}
	return int64(value) << 10
}

// ServerXML is the server's definition.
func (h *Hypervisor) ServerXML(ctx context.Context, name string) (xml string, err error) {
	err = h.on(ctx, name, func(s *server) (err error) {
		if xml, err = s.definition.Marshal(); err != nil {
			return fmt.Errorf("write the server's definition: %w", err)
		}
		return nil
	})
	return xml, err
}

// Diagnostics is the definition.
func (h *Hypervisor) Diagnostics(ctx context.Context, name string) (map[string][]byte, error) {
	xml, err := h.ServerXML(ctx, name)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{"domain-inactive.xml": []byte(xml)}, nil
}
