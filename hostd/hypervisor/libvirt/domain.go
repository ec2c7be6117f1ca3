package libvirt

import (
	"context"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// domain finds a server by name. A uuid that is not "" must be its own.
func (h *Hypervisor) domain(ctx context.Context, name, id string) (rpc.Domain, error) {
	dom, err := ask(ctx, h, fmt.Sprintf("look up server %q", name), func(l *rpc.Libvirt) (rpc.Domain, error) {
		return l.DomainLookupByName(name)
	})
	if err != nil {
		return rpc.Domain{}, err
	}
	if id == "" {
		return dom, nil
	}
	want, err := uuid.Parse(id)
	if err != nil {
		return rpc.Domain{}, fmt.Errorf("UUID %q of server %q: %w", id, name, err)
	}
	if uuid.UUID(dom.UUID) != want {
		return rpc.Domain{}, fmt.Errorf("server %q has the UUID %s, not %s: %w",
			name, uuid.UUID(dom.UUID), want, hypervisor.ErrNotFound)
	}
	return dom, nil
}

// power is the state of a server, and whether QEMU runs for it.
func (h *Hypervisor) power(ctx context.Context, dom rpc.Domain) (hypervisor.PowerState, error) {
	state, err := ask(ctx, h, fmt.Sprintf("get the state of server %q", dom.Name), func(l *rpc.Libvirt) (int32, error) {
		state, _, err := l.DomainGetState(dom, 0)
		return state, err
	})
	if err != nil {
		return hypervisor.PowerUnknown, err
	}
	return powerOf(rpc.DomainState(state)), nil
}

func powerOf(state rpc.DomainState) hypervisor.PowerState {
	switch state {
	case rpc.DomainRunning, rpc.DomainBlocked, rpc.DomainShutdown:
		return hypervisor.PowerRunning
	case rpc.DomainPaused, rpc.DomainPmsuspended, rpc.DomainCrashed:
		// A crashed guest has its QEMU still, if its definition says to preserve it; otherwise libvirt says "shut off".
		return hypervisor.PowerPaused
	case rpc.DomainShutoff:
		return hypervisor.PowerOff
	}
	return hypervisor.PowerUnknown
}

func active(state hypervisor.PowerState) bool {
	return state == hypervisor.PowerRunning || state == hypervisor.PowerPaused
}

// running is nil when the server is active, and wraps ErrNotRunning when it is not.
func (h *Hypervisor) running(ctx context.Context, dom rpc.Domain) error {
	state, err := h.power(ctx, dom)
	if err != nil {
		return err
	}
	if !active(state) {
		return fmt.Errorf("server %q is %s: %w", dom.Name, state, hypervisor.ErrNotRunning)
	}
	return nil
}

// orNotRunning is what failed, or that the server is off, which libvirt has no code of its own for.
func (h *Hypervisor) orNotRunning(ctx context.Context, dom rpc.Domain, failed error) error {
	if code(failed) != rpc.ErrOperationInvalid {
		return failed
	}
	if err := h.running(ctx, dom); err != nil {
		return err
	}
	return failed
}

func (h *Hypervisor) xml(ctx context.Context, dom rpc.Domain, flags rpc.DomainXMLFlags) (string, error) {
	return ask(ctx, h, fmt.Sprintf("get the definition of server %q", dom.Name), func(l *rpc.Libvirt) (string, error) {
		return l.DomainGetXMLDesc(dom, flags)
	})
}

func (h *Hypervisor) definition(ctx context.Context, dom rpc.Domain, flags rpc.DomainXMLFlags) (*libvirtxml.Domain, error) {
	text, err := h.xml(ctx, dom, flags)
	if err != nil {
		return nil, err
	}
	var definition libvirtxml.Domain
	if err := definition.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read the definition of server %q: %w", dom.Name, err)
	}
	return &definition, nil
}
