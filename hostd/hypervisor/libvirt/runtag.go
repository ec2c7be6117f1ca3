package libvirt

import (
	"context"
	"encoding/xml"
	"fmt"

	rpc "github.com/digitalocean/go-libvirt"
)

// A run's tag is an element in the metadata of the live definition alone. libvirt keeps that for as long as the QEMU process
// lives, over its own restarts too, and drops it with the process
// (https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainSetMetadata). An id of a domain could not serve: it is used again.
const (
	runTagKey = "umbra"
	runTagURI = "urn:umbra:run"
)

type runTag struct {
	XMLName xml.Name `xml:"run"`
	Tag     string   `xml:"tag,attr"`
}

// SetRunTag puts a word on the run of a server. "" takes it away. A server that is off is hypervisor.ErrNotRunning.
func (h *Hypervisor) SetRunTag(ctx context.Context, server, tag string) error {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return err
	}
	var element rpc.OptString
	if tag != "" {
		text, err := xml.Marshal(runTag{Tag: tag})
		if err != nil {
			return fmt.Errorf("write the tag of server %q: %w", server, err)
		}
		element = rpc.OptString{string(text)}
	}
	failed := h.call(ctx, fmt.Sprintf("tag the run of server %q", server), func(l *rpc.Libvirt) error {
		return l.DomainSetMetadata(dom, int32(rpc.DomainMetadataElement), element, rpc.OptString{runTagKey},
			rpc.OptString{runTagURI}, rpc.DomainAffectLive)
	})
	return h.orNotRunning(ctx, dom, failed)
}

// RunTag is the word on the run of a server, or "". A server that is off is hypervisor.ErrNotRunning.
func (h *Hypervisor) RunTag(ctx context.Context, server string) (string, error) {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return "", err
	}
	text, err := ask(ctx, h, fmt.Sprintf("read the tag of server %q", server), func(l *rpc.Libvirt) (string, error) {
		return l.DomainGetMetadata(dom, int32(rpc.DomainMetadataElement), rpc.OptString{runTagURI}, rpc.DomainAffectLive)
	})
	if code(err) == rpc.ErrNoDomainMetadata {
		return "", nil
	}
	if err != nil {
		return "", h.orNotRunning(ctx, dom, err)
	}
	var found runTag
	if err := xml.Unmarshal([]byte(text), &found); err != nil {
		return "", fmt.Errorf("read the tag of server %q: %w", server, err)
	}
	return found.Tag, nil
}
