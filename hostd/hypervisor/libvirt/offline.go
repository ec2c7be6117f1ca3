package libvirt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// imageToolMax bounds one run of qemu-img on the metadata of an image.
const imageToolMax = 30 * time.Second

var (
	// errNoImage: a disk's image cannot be opened as a file.
	errNoImage = errors.New("the disk's image is not a plain file or block device of this host")
	// errStarted: it can be tried again, and will be another matter.
	errStarted = errors.New("the server was started meanwhile")
)

// deleteOffline deletes a checkpoint of a server that is off, which libvirt does not: it removes the bitmaps, which have
// the checkpoint's name, from the images of the disks, and then libvirt's record, in this order so that it can be repeated
// after it was cut off. Backing files are not looked into.
//
// qemu-img locks an image while it changes it. So either the change fails, because the server has been started, or
// for these milliseconds a start of the server.
func (h *Hypervisor) deleteOffline(ctx context.Context, dom rpc.Domain, checkpoint string) error {
	failed := h.removeBitmaps(ctx, dom, checkpoint)
	off, err := h.off(ctx, dom)
	switch {
	case err != nil:
		return errors.Join(failed, err)
	case !off:
		return errors.Join(fmt.Errorf("delete checkpoint %q of server %q: %w", checkpoint, dom.Name, errStarted), failed)
	case failed != nil:
		return fmt.Errorf("server %q: %w: %w", dom.Name, hypervisor.ErrNotRunning, failed)
	}
	err = h.deleteCheckpoint(ctx, dom, checkpoint, rpc.DomainCheckpointDeleteMetadataOnly)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	return err
}

func (h *Hypervisor) off(ctx context.Context, dom rpc.Domain) (bool, error) {
	state, err := h.power(ctx, dom)
	return state == hypervisor.PowerOff, err
}

// removeBitmaps removes the bitmaps of that name from the images of a server that is off.
func (h *Hypervisor) removeBitmaps(ctx context.Context, dom rpc.Domain, name string) error {
	definition, err := h.definition(ctx, dom, rpc.DomainXMLInactive)
	if err != nil {
		return err
	}
	described := disksOf(definition)
	for i, disk := range storage(definition) {
		if !described[i].TracksChanges {
			continue
		}
		_, path := sourceOf(disk.Source)
		if path == "" || !plain(disk) {
			return fmt.Errorf("disk %q: %w", disk.Target.Dev, errNoImage)
		}
		if err := h.removeBitmap(ctx, path, name); err != nil {
			return fmt.Errorf("disk %q: %w", disk.Target.Dev, err)
		}
	}
	return nil
}

func (h *Hypervisor) removeBitmap(ctx context.Context, path, name string) error {
	held, err := holdsBitmap(ctx, path, name)
	if err != nil || !held {
		return err
	}
	// While qemu-img has the image open all bitmaps in it count as in use. To kill it would break those of others.
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), imageToolMax)
	defer stop()
	output, err := exec.CommandContext(ctx, "qemu-img", "bitmap", "--remove", "-f", "qcow2", path, name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("remove bitmap %q from %q: %w: %s", name, path, err, output)
	}
	telemetry.From(ctx, h.log).InfoContext(ctx, "bitmap removed from the image of a server that is off", "image", path, "bitmap", name)
	return nil
}

// holdsBitmap looks into a qcow2 image without locking it, so that a start of the server is not held up.
func holdsBitmap(ctx context.Context, path, name string) (bool, error) {
	ctx, stop := context.WithTimeout(ctx, imageToolMax)
	defer stop()
	output, err := exec.CommandContext(ctx, "qemu-img", "info", "-U", "-f", "qcow2", "--output=json", path).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return false, fmt.Errorf("look for bitmaps in %q: %w", path, err)
	}
	type bitmap struct {
		Name string `json:"name"`
	}
	var info struct {
		Specific struct {
			Data struct {
				Bitmaps []bitmap `json:"bitmaps"`
			} `json:"data"`
		} `json:"format-specific"`
	}
	if err := json.Unmarshal(output, &info); err != nil {
		return false, fmt.Errorf("look for bitmaps in %q: %w", path, err)
	}
	return slices.ContainsFunc(info.Specific.Data.Bitmaps, func(b bitmap) bool { return b.Name == name }), nil
}
