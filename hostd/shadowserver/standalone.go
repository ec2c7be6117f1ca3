package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
	if w.rec.Suspending {
		if err := w.switchesEnded(ctx); err != nil {
			return hypervisor.Server{}, err
		}
	}
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

// switchesEnded waits for a switch that was begun, whatever became of the call: the server must not be resumed, nor looked at for the
// images that it is on, before that has ended.
func (w *worker) switchesEnded(ctx context.Context) error {
	s, number, err := w.ownServer(ctx)
	if err != nil || number != w.rec.Current || s.Power == hypervisor.PowerOff {
		return err
	}
	for _, d := range w.ourDisks(s) {
		job, err := w.copyStatus(ctx, s.Name, d)
		switch {
		case errors.Is(err, hypervisor.ErrNotFound), errors.Is(err, hypervisor.ErrNotRunning):
		case err != nil:
			return err
		case job.Switching:
			return fmt.Errorf("server %s is being switched to the copy of disk %s, and stays paused until that has ended", s.Name, d.Target)
		}
	}
	return nil
}

func (w *worker) copyStatus(ctx context.Context, server string, d hypervisor.Disk) (job hypervisor.DiskCopy, err error) {
	err = w.call(ctx, "asking for the copy of disk "+d.Target, func(ctx context.Context) (err error) {
		job, err = w.cfg.Target.CopyStatus(ctx, server, d.Target)
		return err
	})
	return job, err
}

// bringUp starts our server, from its definition or, if somebody has removed that, from the journal's. It is always an error that
// wraps hypervisor.ErrNotRunning, so that it is looked at anew.
func (w *worker) bringUp(ctx context.Context) error {
	s, err := w.lookUp(ctx, w.rec.Server)
	if err != nil {
		return err
	}
	if strings.EqualFold(s.UUID, w.rec.UUID) && w.attemptOn(s) == 0 {
		return fmt.Errorf("no disk of server %s is in %s any more: it was moved elsewhere, and the commit cannot tell whether it stands alone there",
			w.rec.Server, w.rec.attempt(w.rec.Current).Dir)
	}
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

// keepImages makes the definition name the images that the disks are on, and then remembers them, before the guest writes anything more
// to them: an overlay that the server has left is behind from then on. libvirt has changed the definition too when it switched, without
// saying whether it could write that; so it is given again. The journal's sync comes last: on the same file system it takes libvirt's
// file along.
func (w *worker) keepImages(ctx context.Context, moved []string) error {
	at := w.rec.attempt(w.rec.Current)
	images, err := w.recordedImages()
	if err != nil {
		return err
	}
	images = images.moved(moved)
	xml, news, err := images.put(at.XML)
	if err != nil {
		return err
	}
	if err := w.defineImages(ctx, images, news); err != nil || !news {
		return err
	}
	return w.saveAttempt(at.Number, func(a *attempt) { a.XML = xml })
}

// recordedImages are those that the journal says the server's disks are on.
func (w *worker) recordedImages() (definedImages, error) {
	return imagesOf(w.rec.attempt(w.rec.Current).XML)
}

// definition is the server's, as it would be started.
func (w *worker) definition(ctx context.Context) (xml string, err error) {
	err = w.call(ctx, "reading the server's definition", func(ctx context.Context) (err error) {
		xml, err = w.cfg.Target.ServerXML(ctx, w.rec.Server)
		return err
	})
	return xml, err
}

// defineImages has the definition name the images, and looks whether that holds. always: it is given even if it does name them.
func (w *worker) defineImages(ctx context.Context, images definedImages, always bool) error {
	for range 2 {
		defined, err := w.definition(ctx)
		if err != nil {
			return err
		}
		next, changed, err := images.put(defined)
		if err != nil || !changed && !always {
			return err
		}
		if err := w.defineXML(ctx, w.rec.Server, next); err != nil {
			return err
		}
		if !changed {
			return nil
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
