package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// folderMode lets the user that servers run as reach the files whose names libvirt gives it.
const folderMode = 0o711

// prepare turns the recovery point into bootable disks: the point's view below, an empty overlay above. When a
// server of ours exists already, everything that could stop the new one is checked here, before that one is stopped.
func (b *boot) prepare(ctx context.Context) (string, error) {
	if err := b.findPoint(); err != nil {
		return "", err
	}
	view, err := b.openView(ctx)
	if err != nil {
		return "", err
	}
	at := b.attempt()
	images, err := diskImages(view, at.Dir)
	if err != nil {
		return "", err
	}
	b.def, err = define(b.definitionInput(b.spec, b.point, images, b.nvramPath()))
	if err != nil {
		return "", err
	}
	_, other, err := b.ownServer(ctx)
	if err != nil {
		return "", err
	}
	if other != 0 && other != b.number {
		if err := b.checkHost(ctx, b.def); err != nil {
			return "", err
		}
	}
	if at.State != attemptPreparing {
		return "the disks were prepared before", nil
	}
	b.scan = scan{store: b.store, point: b.point.ID, skip: at.Force}
	if err := b.scan.run(ctx, b.cfg.Clock, b.cfg.ScanBeforeBoot); err != nil {
		return "", err
	}
	if err := b.makeFiles(ctx, images); err != nil {
		return "", err
	}
	if err := b.saveAttempt(b.number, func(a *attempt) { a.State = attemptPrepared }); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d disks of %s as of %s; %s", len(images), b.point.ID,
		b.point.CreateTime.UTC().Format(time.RFC3339), b.scan.summary()), nil
}

// findPoint gets the recovery point, or says why it cannot be booted.
func (b *boot) findPoint() error {
	store, err := b.cfg.Replica.Store(b.pair)
	if err != nil {
		return fmt.Errorf("opening the recovery points: %w", err)
	}
	id := recoverystore.PointID(b.attempt().Point)
	point, err := store.Point(id)
	switch {
	case errors.Is(err, recoverystore.ErrNoPoint) && len(store.Points()) == 0:
		return refuse(umbrav1.ErrorReason_ERROR_REASON_NO_RECOVERY_POINT, "there is no recovery point yet")
	case errors.Is(err, recoverystore.ErrNoPoint):
		return refuse(umbrav1.ErrorReason_ERROR_REASON_NOT_FOUND, "there is no recovery point %s", id)
	case err != nil:
		return fmt.Errorf("reading recovery point %s: %w", id, err)
	case point.Damaged && !b.attempt().Force:
		return refuse(umbrav1.ErrorReason_ERROR_REASON_RECOVERY_POINT_DAMAGED, "recovery point %s is damaged", id)
	}
	b.store, b.point = store, point
	return nil
}

// openView opens the point for QEMU. When there is no room for one more view, those of attempts that do not count
// are closed; their overlays stay.
func (b *boot) openView(ctx context.Context) (recoverystore.View, error) {
	options := recoverystore.ViewOptions{AllowDamaged: b.attempt().Force}
	view, err := b.store.OpenView(ctx, b.point.ID, options)
	if errors.Is(err, recoverystore.ErrNoViewSlot) {
		for _, at := range b.rec.Attempts {
			if at.Number == b.number || at.Number == b.rec.Current || b.rec.usesPoint(at.Point, at.Number) {
				continue
			}
			if err := b.store.CloseView(ctx, recoverystore.PointID(at.Point)); err != nil {
				return view, fmt.Errorf("making room for a view: %w", err)
			}
		}
		view, err = b.store.OpenView(ctx, b.point.ID, options)
	}
	if err != nil {
		return view, fmt.Errorf("opening recovery point %s: %w", b.point.ID, err)
	}
	return view, nil
}

// diskImages names the overlay of each disk of a view.
func diskImages(view recoverystore.View, dir string) (map[string]diskImage, error) {
	images := make(map[string]diskImage, len(view.Disks))
	for _, d := range view.Disks {
		if !plainName(d.Name) {
			return nil, fmt.Errorf("disk %q of recovery point %s cannot name a file", d.Name, view.PointID)
		}
		images[d.Name] = diskImage{Overlay: overlayPath(dir, d.Name), View: d}
	}
	return images, nil
}

func (b *boot) nvramPath() string {
	if len(b.point.Attachments[replica.NVRAMAttachment]) == 0 {
		return ""
	}
	return filepath.Join(b.attempt().Dir, "nvram.fd")
}

// makeFiles makes the overlays and the UEFI variables anew. It is called only while nothing of the attempt was ever
// booted, so what an earlier life left there is worth nothing.
func (b *boot) makeFiles(ctx context.Context, images map[string]diskImage) error {
	dir := b.attempt().Dir
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing what was begun of attempt %d: %w", b.number, err)
	}
	for _, d := range []string{b.cfg.ServersDir, b.dir, dir} {
		if err := makeFolder(d); err != nil {
			return fmt.Errorf("making the folder of attempt %d: %w", b.number, err)
		}
	}
	for name, image := range images {
		err := b.call(ctx, "making the overlay of disk "+name, func(ctx context.Context) error {
			return b.cfg.Target.CreateImage(ctx, image.Overlay, image.View.VirtualSizeBytes)
		})
		if err != nil {
			return err
		}
	}
	if path := b.nvramPath(); path != "" {
		if err := b.writeNVRAM(ctx, path, b.point.Attachments[replica.NVRAMAttachment]); err != nil {
			return err
		}
	}
	return errors.Join(syncFolder(dir), syncFolder(b.dir))
}

// makeFolder makes a folder unless it is there, with folderMode whatever the process's umask is.
func makeFolder(dir string) error {
	if fileExists(dir) {
		return nil
	}
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return err
	}
	return os.Chmod(dir, folderMode)
}

// syncFolder makes the names in a folder durable: the journal is about to say that they are there.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("making folder %s durable: %w", dir, err)
	}
	return errors.Join(f.Sync(), f.Close())
}

func (b *boot) writeNVRAM(ctx context.Context, path string, data []byte) error {
	var host hypervisor.Host
	err := b.call(ctx, "asking who servers run as", func(ctx context.Context) (err error) {
		host, err = b.cfg.Target.Host(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("writing the UEFI variables: %w", err)
	}
	if host.ServerUID < 0 || os.Geteuid() != 0 {
		return nil
	}
	if err := os.Chown(path, host.ServerUID, host.ServerGID); err != nil {
		return fmt.Errorf("giving the UEFI variables to the server's user: %w", err)
	}
	return nil
}
