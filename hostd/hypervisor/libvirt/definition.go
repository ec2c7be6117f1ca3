package libvirt

import (
	"context"
	"errors"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// ServerXML is the definition to start the server from elsewhere: the inactive one, in the form libvirt would migrate,
// without secrets.
func (h *Hypervisor) ServerXML(ctx context.Context, name string) (string, error) {
	dom, err := h.domain(ctx, name, "")
	if err != nil {
		return "", err
	}
	return h.xml(ctx, dom, rpc.DomainXMLInactive|rpc.DomainXMLMigratable)
}

// Define defines a server, or changes the definition of the server of that name and UUID.
func (h *Hypervisor) Define(ctx context.Context, xml string) error {
	return h.call(ctx, "define a server", func(l *rpc.Libvirt) error {
		_, err := l.DomainDefineXML(xml)
		return err
	})
}

// undefineAll lets nothing of a server be in the way of removing its definition. The bitmaps themselves stay in its images.
const undefineAll = rpc.DomainUndefineManagedSave | rpc.DomainUndefineSnapshotsMetadata |
	rpc.DomainUndefineNvram | rpc.DomainUndefineCheckpointsMetadata

// Undefine removes the definition of a server, with NVRAM, managed save and the metadata of checkpoints and snapshots. A
// running server goes on, undefined. One that is not there is no error.
func (h *Hypervisor) Undefine(ctx context.Context, server string) error {
	dom, err := h.domain(ctx, server, "")
	if err == nil {
		err = h.call(ctx, fmt.Sprintf("undefine server %q", server), func(l *rpc.Libvirt) error {
			return l.DomainUndefineFlags(dom, undefineAll)
		})
	}
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	return err
}
