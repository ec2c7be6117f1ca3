package shadowserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// rateWeight is the share of the newest measurement in the rate that is shown.
const rateWeight = 0.3

// flattening copies a server's disks, with what lies below them, to images that stand alone, and has the server go on with those,
// one disk after another. Until then it runs on its overlays, which lack nothing: a copy that is lost, with the server's run or by an
// error, costs time only, and is begun anew.
type flattening struct {
	*worker
	disks   map[string]hypervisor.DiskCopy // as last seen
	copying string                         // the disk whose copy runs in this run of the server
	sparing sparing                        // of that copy

	measuredAt time.Time
	measured   int64
	movedAt    time.Time
	rate       float64 // bytes a second
}

// run repeats a round until the disks stand alone. The server may stop meanwhile, by a crash or by its user.
func (f *flattening) run(ctx context.Context) error {
	for {
		done, err := f.round(ctx)
		if errors.Is(err, hypervisor.ErrNotRunning) {
			f.copying = ""
		} else if err != nil {
			return err
		}
		if err == nil && done {
			return nil
		}
		now := f.cfg.Clock.Now()
		f.showStep(umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS, func(s *umbrav1.Step) { s.Progress = f.progress(now) })
		if stalled := f.stalled(now); stalled > flattenStall {
			return fmt.Errorf("no byte was copied for %s", stalled)
		}
		if err := f.cfg.Clock.Wait(ctx, f.interval()); err != nil {
			return err
		}
	}
}

func (f *flattening) round(ctx context.Context) (done bool, err error) {
	s, err := f.standing(ctx)
	if err != nil {
		return false, err
	}
	for _, d := range f.ourDisks(s) {
		if f.disks[d.Target].TotalBytes == 0 {
			f.seen(d, hypervisor.DiskCopy{})
		}
	}
	for _, d := range f.ourDisks(s) {
		if standsAlone(d.Source, d.Target) {
			f.seen(d, hypervisor.DiskCopy{DoneBytes: d.SizeBytes})
			continue
		}
		if s.Power == hypervisor.PowerOff {
			return false, f.bringUp(ctx)
		}
		if err := f.mayBeCopied(s, d); err != nil {
			return false, err
		}
		return f.advance(ctx, s, d)
	}
	return true, f.definedAlone(ctx)
}

// mayBeCopied refuses a disk that stood alone already, by the journal, and does not any more: the image that stands alone must not be
// made anew then.
func (f *flattening) mayBeCopied(s hypervisor.Server, d hypervisor.Disk) error {
	images, err := f.recordedImages()
	if err != nil {
		return err
	}
	switch image := images[d.Target]; {
	case !standsAlone(image.path, d.Target):
		return nil
	case d.Source == overlayPath(filepath.Dir(d.Source), d.Target):
		return fmt.Errorf("server %s runs on %s again, which it had left: shut it down, so that the commit can go on", s.Name, d.Source)
	default:
		return fmt.Errorf("disk %s of server %s is on %s, which somebody has put above %s: merge it into that (virsh blockcommit), so that the commit can go on",
			d.Target, s.Name, d.Source, image.path)
	}
}

// definedAlone refuses to end the commit while the definition has a disk that does not stand alone, though the server may run without it.
func (f *flattening) definedAlone(ctx context.Context) error {
	xml, err := f.definition(ctx)
	if err != nil {
		return err
	}
	images, err := imagesOf(xml)
	if err != nil {
		return err
	}
	for target, image := range images {
		if f.rec.attemptOf(image.path) == f.rec.Current && !standsAlone(image.path, target) {
			return fmt.Errorf("disk %s of server %s was detached while it runs, and is in its definition: attach it, or take it out of that, so that the commit can end",
				target, f.rec.Server)
		}
	}
	return nil
}

func (f *flattening) seen(d hypervisor.Disk, job hypervisor.DiskCopy) {
	if f.disks == nil {
		f.disks = map[string]hypervisor.DiskCopy{}
	}
	if job.TotalBytes == 0 { // QEMU's own measure, once it says one
		job.TotalBytes = d.SizeBytes
	}
	f.disks[d.Target] = job
}

// advance begins the copy of a disk, or looks at it, or has the server go on with it.
//
// One disk at a time: QEMU (7.2) crashes when libvirt, dealing with the end of one job, asks it for all of its nodes as another ends.
func (f *flattening) advance(ctx context.Context, s hypervisor.Server, d hypervisor.Disk) (done bool, err error) {
	job, err := f.copyStatus(ctx, s.Name, d)
	if errors.Is(err, hypervisor.ErrNotFound) {
		// The server may have gone on with the copy since it was looked at: then that is no copy that was lost.
		if still, err := f.stillOn(ctx, d); err != nil || !still {
			return false, err
		}
		if f.copying == d.Target {
			return false, f.lostCopy(d)
		}
		return false, f.beginCopy(ctx, s, d)
	}
	if err != nil {
		return false, err
	}
	if job.Path != standalonePath(filepath.Dir(d.Source), d.Target) {
		return false, fmt.Errorf("disk %s of server %s is being copied to %s by somebody else: the commit goes on when that has ended", d.Target, s.Name, job.Path)
	}
	f.seen(d, job)
	if err := f.enoughRoom(ctx, s, d, job); err != nil {
		return false, err
	}
	if f.copying != d.Target { // an earlier life of ours began it, and may have limited it
		f.copies(d)
		if err := f.limitCopy(ctx, s.Name, d, 0); err != nil {
			return false, err
		}
	}
	if job.Switching { // by an earlier life of ours
		return false, nil
	}
	if !job.Complete {
		return false, f.spare(ctx, s.Name, d)
	}
	if err := f.switchOver(ctx, s, d); err != nil {
		return false, err
	}
	return f.round(ctx)
}

// lostCopy says why a copy has probably ended before it was complete, and gives its room back at once: the guest may need it.
func (f *flattening) lostCopy(d hypervisor.Disk) error {
	f.copying = ""
	job := f.disks[d.Target]
	if err := removeImage(standalonePath(filepath.Dir(d.Source), d.Target)); err != nil {
		return err
	}
	return &hypervisorError{doing: "copying the disks", err: fmt.Errorf("the copy of disk %s ended at %d of %d MiB; QEMU's log of the server may say why",
		d.Target, job.DoneBytes>>20, job.TotalBytes>>20)}
}

// enoughRoom ends a copy for which there is not enough, before the guest's own writes find none.
func (f *flattening) enoughRoom(ctx context.Context, s hypervisor.Server, d hypervisor.Disk, job hypervisor.DiskCopy) error {
	dir := filepath.Dir(d.Source)
	free, err := f.cfg.FreeBytes(dir)
	if err != nil {
		return fmt.Errorf("asking for the room at %s: %w", dir, err)
	}
	need := job.TotalBytes - job.DoneBytes + f.cfg.FreeBytesMin
	if job.Complete || job.Switching || free >= need {
		return nil
	}
	f.copying = ""
	err = f.call(ctx, "ending the copy of disk "+d.Target, func(ctx context.Context) error {
		return f.cfg.Target.CopyCancel(ctx, s.Name, d.Target)
	})
	if err != nil {
		return err
	}
	still, err := f.stillOn(ctx, d)
	if err != nil || !still {
		return err
	}
	return errors.Join(removeImage(job.Path), refuse(umbrav1.ErrorReason_ERROR_REASON_NO_SPACE,
		"to make disk %s stand alone takes %d MiB at %s, which has %d MiB free; the server runs on, and its disks are as they were",
		d.Target, need>>20, dir, free>>20))
}

// stillOn tells whether the server still runs on a disk's image as it was seen.
func (f *flattening) stillOn(ctx context.Context, d hypervisor.Disk) (bool, error) {
	s, number, err := f.ownServer(ctx)
	if err != nil || number != f.rec.Current || s.Power == hypervisor.PowerOff {
		return false, err
	}
	return slices.ContainsFunc(s.Disks, func(now hypervisor.Disk) bool { return now.Target == d.Target && now.Source == d.Source }), nil
}

func removeImage(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing an unfinished copy: %w", err)
	}
	return nil
}

// beginCopy makes the image anew: what a copy has left that was lost is worth nothing, and the server does not use it.
func (f *flattening) beginCopy(ctx context.Context, s hypervisor.Server, d hypervisor.Disk) error {
	path := standalonePath(filepath.Dir(d.Source), d.Target)
	if err := removeImage(path); err != nil {
		return err
	}
	err := f.call(ctx, "making the image that disk "+d.Target+" is copied to", func(ctx context.Context) error {
		return f.cfg.Target.CreateImage(ctx, path, d.SizeBytes)
	})
	if err != nil {
		return err
	}
	if err := syncFolder(filepath.Dir(path)); err != nil {
		return err
	}
	err = f.call(ctx, "beginning to copy disk "+d.Target, func(ctx context.Context) error {
		return f.cfg.Target.CopyStart(ctx, s.Name, d.Target, path)
	})
	if err == nil {
		f.copies(d)
	}
	return err
}

// copies notes that the copy of a disk runs.
func (f *flattening) copies(d hypervisor.Disk) {
	f.copying, f.sparing = d.Target, sparing{costMax: f.cfg.CopyCostMax}
}

func (f *flattening) progress(now time.Time) *umbrav1.Progress {
	var done, total int64
	for _, job := range f.disks {
		done += job.DoneBytes
		total += job.TotalBytes
	}
	switch elapsed := now.Sub(f.measuredAt).Seconds(); {
	case f.measuredAt.IsZero():
		f.movedAt = now
	case elapsed > 0:
		latest := float64(max(done-f.measured, 0)) / elapsed
		if f.rate == 0 {
			f.rate = latest
		}
		f.rate += rateWeight * (latest - f.rate)
	}
	if done != f.measured {
		f.movedAt = now
	}
	f.measuredAt, f.measured = now, done
	out := &umbrav1.Progress{DoneBytes: done, TotalBytes: total, BytesPerSecond: int64(f.rate)}
	if f.rate >= 1 {
		out.TimeLeft = durationpb.New(time.Duration(float64(total-done) / f.rate * float64(time.Second)))
	}
	return out
}

// interval is how long to wait before the next look: less when a copy is about to be complete.
func (f *flattening) interval() time.Duration {
	job := f.disks[f.copying]
	if f.rate < 1 {
		return flattenIntervalMin
	}
	left := float64(job.TotalBytes-job.DoneBytes) / f.rate
	return min(max(time.Duration(left/4*float64(time.Second)), flattenIntervalMin), flattenIntervalMax)
}

// stalled is how long no byte has moved.
func (f *flattening) stalled(now time.Time) time.Duration { return now.Sub(f.movedAt) }
