package shadowserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// rateWeight is the share of the newest measurement in the rate that is shown.
const rateWeight = 0.3

// pull is the block pull of a server's disks, with its figures.
type pull struct {
	*worker
	disks map[string]hypervisor.BlockJob // as last seen

	measuredAt time.Time
	measured   int64
	movedAt    time.Time
	rate       float64 // bytes a second
}

// until repeats a round until it says that it is done. The server may stop meanwhile, by a crash or by its user.
func (p *pull) until(ctx context.Context, round func(context.Context) (done bool, err error)) error {
	for {
		done, err := round(ctx)
		if err != nil && !errors.Is(err, hypervisor.ErrNotRunning) {
			return err
		}
		if err == nil && done {
			return nil
		}
		now := p.cfg.Clock.Now()
		p.showStep(umbrav1.StepKind_STEP_KIND_FLATTEN_DISKS, func(s *umbrav1.Step) { s.Progress = p.progress(now) })
		if stalled := p.stalled(now); stalled > flattenStall {
			return fmt.Errorf("no byte was copied for %s", stalled)
		}
		if err := p.cfg.Clock.Wait(ctx, flattenInterval); err != nil {
			return err
		}
	}
}

// settled is one round towards disks that are pulled, durably.
//
// QEMU holds the tables of the images that it pulls into in its memory, and an image whose tables were lost reads as zeros once
// nothing is below it. So a disk without a backing file counts only in the run of the server in which its pull was begun, and
// until that run has written everything out the definition keeps the recovery point below the disks.
func (p *pull) settled(ctx context.Context) (done bool, err error) {
	s, err := p.keepRunning(ctx)
	if err != nil {
		return false, err
	}
	left, err := p.disksLeft(ctx, s)
	if err != nil {
		return false, err
	}
	// Before anything else: a pull that has just ended has taken the recovery point out of the definition.
	if err := p.defineChains(ctx, chains.whole); err != nil {
		return false, err
	}
	if len(left) > 0 {
		return false, p.pullNext(ctx, s.Name, left)
	}
	return p.settle(ctx, s)
}

// alone is one round towards a server that does without the recovery point, in its definition and in its present run. That run
// may be a later one than that which has pulled: there is nothing left to copy in it.
func (p *pull) alone(ctx context.Context) (done bool, err error) {
	if err := p.defineChains(ctx, chains.alone); err != nil {
		return false, err
	}
	s, number, err := p.ownServer(ctx)
	if err != nil || number != p.rec.Current || s.Power == hypervisor.PowerOff {
		return err == nil, err
	}
	left, err := p.disksLeft(ctx, s)
	if err != nil || len(left) == 0 {
		return err == nil, err
	}
	return false, p.pullNext(ctx, s.Name, left)
}

// diskLeft is a disk that has a backing file.
type diskLeft struct {
	target  string
	pulling bool
}

func (p *pull) disksLeft(ctx context.Context, s hypervisor.Server) (left []diskLeft, err error) {
	if p.disks == nil {
		p.disks = map[string]hypervisor.BlockJob{}
	}
	for _, d := range p.ourDisks(s) {
		backed, err := p.backed(ctx, s.Name, d.Target)
		if err != nil {
			return nil, err
		}
		if !backed {
			p.disks[d.Target] = hypervisor.BlockJob{DoneBytes: d.SizeBytes, TotalBytes: d.SizeBytes}
			continue
		}
		pulling, err := p.look(ctx, s.Name, d)
		if err != nil {
			return nil, err
		}
		left = append(left, diskLeft{d.Target, pulling})
	}
	return left, nil
}

// look asks for the pull of a disk that is backed. One that is not running has not begun, or has been lost with its server.
func (p *pull) look(ctx context.Context, server string, d hypervisor.Disk) (pulling bool, err error) {
	var job hypervisor.BlockJob
	err = p.call(ctx, "asking for the progress of disk "+d.Target, func(ctx context.Context) (err error) {
		job, err = p.cfg.Target.PullStatus(ctx, server, d.Target)
		return err
	})
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return false, err
	}
	job.TotalBytes = cmp.Or(job.TotalBytes, d.SizeBytes) // QEMU's own measure, once it says one
	p.disks[d.Target] = job
	return err == nil, nil
}

// pullNext begins the pull of the first disk, unless one runs.
//
// One at a time: what a pull leaves behind when it ends stays in QEMU until libvirt has dealt with it, and QEMU (7.2) crashes
// when libvirt, dealing with the end of another pull just then, asks it for all of its nodes.
func (p *pull) pullNext(ctx context.Context, server string, left []diskLeft) error {
	if slices.ContainsFunc(left, func(d diskLeft) bool { return d.pulling }) {
		return nil
	}
	disk := left[0].target
	err := p.call(ctx, "beginning the pull of disk "+disk, func(ctx context.Context) error {
		return p.cfg.Target.PullStart(ctx, server, disk)
	})
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil // it has ended between the two questions; the next round sees that
	}
	return err
}

func (p *pull) progress(now time.Time) *umbrav1.Progress {
	var done, total int64
	for _, job := range p.disks {
		done += job.DoneBytes
		total += job.TotalBytes
	}
	switch elapsed := now.Sub(p.measuredAt).Seconds(); {
	case p.measuredAt.IsZero():
		p.movedAt = now
	case elapsed > 0:
		latest := float64(max(done-p.measured, 0)) / elapsed
		if p.rate == 0 {
			p.rate = latest
		}
		p.rate += rateWeight * (latest - p.rate)
	}
	if done != p.measured {
		p.movedAt = now
	}
	p.measuredAt, p.measured = now, done
	out := &umbrav1.Progress{DoneBytes: done, TotalBytes: total, BytesPerSecond: int64(p.rate)}
	if p.rate >= 1 {
		out.TimeLeft = durationpb.New(time.Duration(float64(total-done) / p.rate * float64(time.Second)))
	}
	return out
}

// stalled is how long no byte has moved.
func (p *pull) stalled(now time.Time) time.Duration { return now.Sub(p.movedAt) }
