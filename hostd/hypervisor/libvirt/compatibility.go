package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"
	"slices"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// CheckDefinition says why a server of this XML could not be started here, as hypervisor.ErrIncompatible. Other errors
// mean that it could not be found out.
func (h *Hypervisor) CheckDefinition(ctx context.Context, definition string) error {
	var server libvirtxml.Domain
	if err := server.Unmarshal(definition); err != nil {
		return fmt.Errorf("read the server's definition: %w: %w", hypervisor.ErrIncompatible, err)
	}
	if server.OS == nil || server.OS.Type == nil || server.OS.Type.Type != "hvm" {
		return fmt.Errorf("the definition is not of a fully virtualised (hvm) server: %w", hypervisor.ErrIncompatible)
	}
	capabilities, err := h.serverCapabilities(ctx, &server)
	if err != nil {
		return err
	}
	return h.checkCPU(ctx, &server, capabilities)
}

// serverCapabilities is what servers of this one's type, architecture and machine can have here.
func (h *Hypervisor) serverCapabilities(ctx context.Context, server *libvirtxml.Domain) (*libvirtxml.DomainCaps, error) {
	os := server.OS.Type
	what := fmt.Sprintf("look for machine type %q, architecture %q, virtualisation %q", os.Machine, os.Arch, server.Type)
	text, err := ask(ctx, h, what, func(l *rpc.Libvirt) (string, error) {
		return l.ConnectGetDomainCapabilities(nil, optional(os.Arch), optional(os.Machine), optional(server.Type), 0)
	})
	if isRefusal(err) {
		return nil, fmt.Errorf("this host cannot run the server: %w: %w", hypervisor.ErrIncompatible, err)
	}
	if err != nil {
		return nil, err
	}
	var capabilities libvirtxml.DomainCaps
	if err := capabilities.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read the capabilities for servers: %w", err)
	}
	return &capabilities, nil
}

func (h *Hypervisor) checkCPU(ctx context.Context, server *libvirtxml.Domain, capabilities *libvirtxml.DomainCaps) error {
	if server.CPU == nil || capabilities.CPU == nil {
		return nil
	}
	if mode := server.CPU.Mode; mode != "" && mode != "custom" {
		supported := slices.ContainsFunc(capabilities.CPU.Modes, func(m libvirtxml.DomainCapsCPUMode) bool {
			return m.Name == mode && m.Supported == "yes"
		})
		if !supported {
			return fmt.Errorf("the CPU mode %q cannot be had here for servers of type %q: %w",
				mode, server.Type, hypervisor.ErrIncompatible)
		}
		return nil
	}
	if server.CPU.Model == nil {
		return nil
	}
	cpu, err := xml.Marshal(server.CPU)
	if err != nil {
		return fmt.Errorf("write the CPU of the server: %w", err)
	}
	what := fmt.Sprintf("compare CPU model %q with this host's", server.CPU.Model.Value)
	os := server.OS.Type
	result, err := ask(ctx, h, what, func(l *rpc.Libvirt) (int32, error) {
		return l.ConnectCompareHypervisorCPU(nil, optional(os.Arch), optional(os.Machine), optional(server.Type),
			string(cpu), uint32(rpc.ConnectCompareCPUFailIncompatible))
	})
	switch {
	case code(err) == rpc.ErrNoSupport || code(err) == rpc.ErrOperationUnsupported:
		// This host cannot compare CPUs for this kind of server (architectures other than x86 and s390).
		return nil
	case isRefusal(err) || code(err) == rpc.ErrInternalError:
		// An internal error is libvirt's word for a model or feature that it has never heard of.
		return fmt.Errorf("this host's CPU does not do for the server: %w: %w", hypervisor.ErrIncompatible, err)
	case err != nil:
		return err
	case rpc.CPUCompareResult(result) == rpc.CPUCompareIncompatible:
		return fmt.Errorf("this host's CPU lacks what model %q has: %w", server.CPU.Model.Value, hypervisor.ErrIncompatible)
	}
	return nil
}

// isRefusal tells answers that are about what was asked for from those about libvirt's own troubles.
func isRefusal(err error) bool {
	switch code(err) {
	case rpc.ErrInvalidArg, rpc.ErrConfigUnsupported, rpc.ErrCPUIncompatible, rpc.ErrXMLError:
		return true
	}
	return false
}

func optional(value string) rpc.OptString {
	if value == "" {
		return nil
	}
	return rpc.OptString{value}
}
