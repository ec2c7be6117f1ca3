package libvirt

import (
	"context"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// SetLinks sets the links of all network interfaces up or down, in the running server and in the definition.
func (h *Hypervisor) SetLinks(ctx context.Context, server string, up bool) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	state, err := h.power(ctx, dom)
	if err != nil {
		return err
	}
	if active(state) {
		if err := h.setLinks(ctx, dom, up, 0, rpc.DomainDeviceModifyLive); err != nil {
			return err
		}
	}
	if err := h.setLinks(ctx, dom, up, rpc.DomainXMLInactive, rpc.DomainDeviceModifyConfig); err != nil {
		return err
	}
	telemetry.From(ctx, h.log).InfoContext(ctx, "links set", "server", server, "up", up, "state", state.String())
	return nil
}

func (h *Hypervisor) setLinks(ctx context.Context, dom rpc.Domain, up bool,
	which rpc.DomainXMLFlags, modify rpc.DomainDeviceModifyFlags,
) error {
	definition, err := h.definition(ctx, dom, which)
	if err != nil {
		return err
	}
	if definition.Devices == nil {
		return nil
	}
	for i := range definition.Devices.Interfaces {
		device := &definition.Devices.Interfaces[i]
		if linkUp(device) == up {
			continue
		}
		device.Link = &libvirtxml.DomainInterfaceLink{State: linkState(up)}
		text, err := device.Marshal()
		if err != nil {
			return fmt.Errorf("write an interface of server %q: %w", dom.Name, err)
		}
		what := fmt.Sprintf("set the link of %s of server %q %s", address(device), dom.Name, linkState(up))
		if err := h.call(ctx, what, func(l *rpc.Libvirt) error {
			return l.DomainUpdateDeviceFlags(dom, text, modify)
		}); err != nil {
			return err
		}
	}
	return nil
}

func linkUp(device *libvirtxml.DomainInterface) bool {
	return device.Link == nil || device.Link.State != linkState(false)
}

func linkState(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func address(device *libvirtxml.DomainInterface) string {
	if device.MAC == nil {
		return "an interface"
	}
	return device.MAC.Address
}
