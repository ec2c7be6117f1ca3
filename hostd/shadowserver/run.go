package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// tagPulling is the tag of a run of the server in which pulls may be begun: every disk of ours stood on the recovery point then.
const tagPulling = "umbra commit"

func (w *worker) runTag(ctx context.Context, server string) (tag string, err error) {
	err = w.call(ctx, "asking for the tag of server "+server, func(ctx context.Context) (err error) {
		tag, err = w.cfg.Target.RunTag(ctx, server)
		return err
	})
	return tag, err
}

func (w *worker) setRunTag(ctx context.Context, server, tag string) error {
	return w.call(ctx, "tagging server "+server, func(ctx context.Context) error {
		return w.cfg.Target.SetRunTag(ctx, server, tag)
	})
}

// clearRunTag takes the commit's tag off a server, if it is still there.
func (w *worker) clearRunTag(ctx context.Context) error {
	s, number, err := w.ownServer(ctx)
	if err != nil || number == 0 || s.Power == hypervisor.PowerOff {
		return err
	}
	if err := w.setRunTag(ctx, s.Name, ""); !errors.Is(err, hypervisor.ErrNotRunning) && !errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	return nil
}

func (w *worker) ourDisks(s hypervisor.Server) (ours []hypervisor.Disk) {
	for _, d := range s.Disks {
		if w.rec.attemptOf(d.Source) == w.rec.Current {
			ours = append(ours, d)
		}
	}
	return ours
}

// keepRunning gets our server running, whatever became of it since it was verified, in a run in which no disk lacks what it
// needs.
func (w *worker) keepRunning(ctx context.Context) (hypervisor.Server, error) {
	s, number, err := w.ownServer(ctx)
	if err != nil {
		return s, err
	}
	if number == w.rec.Current {
		if s.Power != hypervisor.PowerOff {
			known, err := w.adopt(ctx, s)
			if err != nil || known {
				return s, err
			}
			if err := w.stopStrayed(ctx, s); err != nil {
				return s, err
			}
		}
		if err := w.defineChains(ctx, chains.whole); err != nil {
			return s, err
		}
	}
	w.log.Info("the server is started, since its disks can be made to stand alone only while it runs", "server", w.rec.Server)
	if err := w.bringBack(ctx, true); err != nil {
		return s, err
	}
	s, number, err = w.ownServer(ctx)
	if err != nil {
		return s, err
	}
	if number != w.rec.Current {
		return s, fmt.Errorf("server %s does not have the disks of attempt %d", w.rec.Server, w.rec.Current)
	}
	return s, fmt.Errorf("server %s was only just started: %w", s.Name, hypervisor.ErrNotRunning)
}

// adopt tells whether the run of the server is one that may be pulled in. A new one is, if all of its disks stand on the
// recovery point.
func (w *worker) adopt(ctx context.Context, s hypervisor.Server) (bool, error) {
	tag, err := w.runTag(ctx, s.Name)
	if err != nil || tag != "" {
		return err == nil, err
	}
	for _, d := range w.ourDisks(s) {
		backed, err := w.backed(ctx, s.Name, d.Target)
		if err != nil || !backed {
			return false, err
		}
	}
	return true, w.setRunTag(ctx, s.Name, tagPulling)
}

func (w *worker) backed(ctx context.Context, server, disk string) (backed bool, err error) {
	err = w.call(ctx, "looking at the backing file of disk "+disk, func(ctx context.Context) (err error) {
		backed, err = w.cfg.Target.Backed(ctx, server, disk)
		return err
	})
	return backed, err
}

// stopStrayed ends a run on disks whose pulls may have been lost with the run before. What it wrote is kept.
func (w *worker) stopStrayed(ctx context.Context, s hypervisor.Server) error {
	w.log.Error("somebody has started the server without its recovery point, before its disks could do without; it is started again with it",
		"server", s.Name)
	if err := w.save(func(r *record) { r.Strayed = true }); err != nil {
		return err
	}
	return w.destroy(ctx, s.Name)
}

// settle makes durable what was pulled. The guest stops for a moment for it, since that is what QEMU writes everything out
// for; what the host's page cache holds is written before, while the guest still runs. false means that it must be tried again.
func (w *worker) settle(ctx context.Context, s hypervisor.Server) (bool, error) {
	if s.Power == hypervisor.PowerPaused {
		if !w.rec.Suspending {
			return false, fmt.Errorf("server %s is paused: resume it, so that the commit can end", s.Name)
		}
		return false, w.resume(ctx, s.Name) // an earlier life of ours has paused it
	}
	if err := w.syncDisks(s); err != nil {
		return false, err
	}
	if err := w.save(func(r *record) { r.Suspending = true }); err != nil {
		return false, err
	}
	suspended := w.call(ctx, "suspending server "+s.Name, func(ctx context.Context) error {
		return w.cfg.Target.Suspend(ctx, s.Name)
	})
	if err := errors.Join(suspended, w.resume(context.WithoutCancel(ctx), s.Name)); err != nil {
		return false, err
	}
	if err := w.syncDisks(s); err != nil {
		return false, err
	}
	tag, err := w.runTag(ctx, s.Name)
	return tag == tagPulling, err
}

func (w *worker) resume(ctx context.Context, server string) error {
	return w.call(ctx, "resuming server "+server, func(ctx context.Context) error { return w.cfg.Target.Resume(ctx, server) })
}

// syncDisks has the images of our disks on stable storage, whatever cache mode QEMU has them open with.
func (w *worker) syncDisks(s hypervisor.Server) error {
	for _, d := range w.ourDisks(s) {
		f, err := os.Open(d.Source)
		if err != nil {
			return fmt.Errorf("making disk %s durable: %w", d.Target, err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("making disk %s durable: %w", d.Target, err)
		}
	}
	return nil
}
