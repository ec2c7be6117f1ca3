package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

func (w *worker) ourDisks(s hypervisor.Server) (ours []hypervisor.Disk) {
	for _, d := range s.Disks {
		if w.rec.attemptOf(d.Source) == w.rec.Current {
			ours = append(ours, d)
		}
	}
	return ours
}

// standing is our server, whatever became of it since it was verified, with the journal and its definition in step with the images
// that its disks are on. It does not stay paused by us.
func (w *worker) standing(ctx context.Context) (hypervisor.Server, error) {
	s, number, err := w.ownServer(ctx)
	if err != nil {
		return s, err
	}
	if number != w.rec.Current {
		return s, w.bringUp(ctx)
	}
	var moved []string
	for _, d := range w.ourDisks(s) {
		if standsAlone(d.Source, d.Target) {
			moved = append(moved, d.Target)
		}
	}
	if err := w.keepImages(ctx, moved); err != nil {
		return s, err
	}
	if !w.rec.Suspending || s.Power == hypervisor.PowerOff {
		return s, nil
	}
	if err := w.resume(ctx, s.Name); err != nil {
		return s, err
	}
	s.Power = hypervisor.PowerRunning
	return s, w.save(func(r *record) { r.Suspending = false })
}

// bringUp starts our server, from its definition or, if somebody has removed that, from the journal's. It is always an error that
// wraps hypervisor.ErrNotRunning, so that it is looked at anew.
func (w *worker) bringUp(ctx context.Context) error {
	w.log.Info("the server is started, since its disks can be made to stand alone only while it runs", "server", w.rec.Server)
	if err := w.bringBack(ctx, true); err != nil {
		return err
	}
	_, number, err := w.ownServer(ctx)
	if err != nil {
		return err
	}
	if number != w.rec.Current {
		return fmt.Errorf("server %s does not have the disks of attempt %d", w.rec.Server, w.rec.Current)
	}
	return fmt.Errorf("server %s was only just started: %w", w.rec.Server, hypervisor.ErrNotRunning)
}

// keepImages remembers which disks stand alone, and makes that so for the definition, before the guest writes anything more to them:
// an overlay that the server has left is behind from then on. libvirt changes the definition too; it is looked at again.
func (w *worker) keepImages(ctx context.Context, moved []string) error {
	at := w.rec.attempt(w.rec.Current)
	images, err := imagesOf(at.XML)
	if err != nil {
		return err
	}
	images = images.moved(moved)
	xml, changed, err := images.put(at.XML)
	if err != nil {
		return err
	}
	if changed {
		if err := w.saveAttempt(at.Number, func(a *attempt) { a.XML = xml }); err != nil {
			return err
		}
	}
	for range 2 {
		var defined string
		err := w.call(ctx, "reading the server's definition", func(ctx context.Context) (err error) {
			defined, err = w.cfg.Target.ServerXML(ctx, w.rec.Server)
			return err
		})
		if err != nil {
			return err
		}
		next, changed, err := images.put(defined)
		if err != nil || !changed {
			return err
		}
		if err := w.defineXML(ctx, w.rec.Server, next); err != nil {
			return err
		}
	}
	return fmt.Errorf("the definition of server %s does not keep the images of its disks", w.rec.Server)
}

// switchOver has the server go on with the complete copy of a disk. The guest is paused for it, so that whichever of the two a
// crash leaves in the definition holds everything; the copy is on stable storage before that.
func (w *worker) switchOver(ctx context.Context, s hypervisor.Server, d hypervisor.Disk) error {
	if s.Power == hypervisor.PowerPaused {
		return fmt.Errorf("server %s is paused: resume it, so that the commit can end", s.Name)
	}
	path := standalonePath(filepath.Dir(d.Source), d.Target)
	if err := syncFile(path); err != nil { // most of it, while the guest still runs
		return err
	}
	if err := w.save(func(r *record) { r.Suspending = true }); err != nil {
		return err
	}
	err := w.call(ctx, "suspending server "+s.Name, func(ctx context.Context) error { return w.cfg.Target.Suspend(ctx, s.Name) })
	if err == nil {
		err = syncFile(path)
	}
	if err == nil {
		err = w.call(ctx, "switching to the copy of disk "+d.Target, func(ctx context.Context) error {
			return w.cfg.Target.CopySwitch(ctx, s.Name, d.Target)
		})
	}
	_, resumed := w.standing(context.WithoutCancel(ctx))
	return errors.Join(err, resumed)
}

func (w *worker) resume(ctx context.Context, server string) error {
	return w.call(ctx, "resuming server "+server, func(ctx context.Context) error { return w.cfg.Target.Resume(ctx, server) })
}

// syncFile has an image on stable storage, whatever cache mode QEMU has it open with.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("making image %s durable: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("making image %s durable: %w", path, err)
	}
	return nil
}
