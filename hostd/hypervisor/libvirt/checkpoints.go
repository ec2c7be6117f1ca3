package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// checkpointPrefix begins the names of Umbra's checkpoints. Others are never touched.
const checkpointPrefix = "umbra-"

var errForeignCheckpoint = errors.New("the checkpoint is not one of Umbra's")

// Checkpoints lists Umbra's checkpoints of the server, oldest first: the order in which they descend from one another,
// which, unlike their times, no clock that was set back can confuse.
func (h *Hypervisor) Checkpoints(ctx context.Context, server string) ([]string, error) {
	dom, err := h.domain(ctx, server, "")
	if err != nil {
		return nil, err
	}
	all, err := ask(ctx, h, fmt.Sprintf("list the checkpoints of server %q", server),
		func(l *rpc.Libvirt) ([]rpc.DomainCheckpoint, error) {
			checkpoints, _, err := l.DomainListAllCheckpoints(dom, 1, uint32(rpc.DomainCheckpointListTopological))
			return checkpoints, err
		})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, checkpoint := range all {
		if strings.HasPrefix(checkpoint.Name, checkpointPrefix) {
			names = append(names, checkpoint.Name)
		}
	}
	return names, nil
}

// DeleteCheckpoint deletes one of Umbra's checkpoints. One that is not there, or whose server is not, is no error. Of one
// whose bitmap is broken or gone libvirt's record is removed. Of a server that is off the bitmaps are removed from its
// images, or it is hypervisor.ErrNotRunning where they cannot be.
func (h *Hypervisor) DeleteCheckpoint(ctx context.Context, server, checkpoint string) error {
	if !strings.HasPrefix(checkpoint, checkpointPrefix) {
		return fmt.Errorf("delete checkpoint %q of server %q: %w", checkpoint, server, errForeignCheckpoint)
	}
	dom, err := h.domain(ctx, server, "")
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	err = h.deleteCheckpoint(ctx, dom, checkpoint, 0)
	if lacksBitmap(err) {
		telemetry.From(ctx, h.log).WarnContext(ctx, "checkpoint without a working bitmap is forgotten",
			"server", server, "checkpoint", checkpoint, "error", err)
		err = h.deleteCheckpoint(ctx, dom, checkpoint, rpc.DomainCheckpointDeleteMetadataOnly)
	}
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		return nil
	case err != nil && code(err) == rpc.ErrOperationUnsupported:
		off, powerErr := h.off(ctx, dom)
		if powerErr != nil {
			return fmt.Errorf("%w: %w", err, powerErr)
		}
		if off {
			return h.deleteOffline(ctx, dom, checkpoint)
		}
	}
	return err
}

func (h *Hypervisor) deleteCheckpoint(ctx context.Context, dom rpc.Domain, name string,
	flags rpc.DomainCheckpointDeleteFlags,
) error {
	what := fmt.Sprintf("delete checkpoint %q of server %q", name, dom.Name)
	return h.call(ctx, what, func(l *rpc.Libvirt) error {
		return l.DomainCheckpointDelete(rpc.DomainCheckpoint{Name: name, Dom: dom}, flags)
	})
}

// lacksBitmap: a bitmap that is missing from the images, or that QEMU calls inconsistent after it was killed, is
// reported under general codes.
func lacksBitmap(err error) bool {
	switch code(err) {
	case rpc.ErrCheckpointInconsistent:
		return true
	case rpc.ErrInternalError, rpc.ErrOperationFailed:
		return strings.Contains(strings.ToLower(err.Error()), "bitmap")
	}
	return false
}
