package shadowserver

import (
	"context"
	"errors"
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

// round looks at each disk of ours, begins what must be begun, and counts the disks that still have a backing file.
func (p *pull) round(ctx context.Context, s hypervisor.Server) (left int, err error) {
	if p.disks == nil {
		p.disks = map[string]hypervisor.BlockJob{}
	}
	for _, d := range s.Disks {
		if p.rec.attemptOf(d.Source) != p.rec.Current {
			continue
		}
		done, err := p.disk(ctx, s.Name, d.Target)
		if err != nil {
			return left, err
		}
		if !done {
			left++
		}
	}
	return left, nil
}

// disk looks at one disk. A pull that is not running while the disk is still backed has not begun, or has been lost
// with its server.
func (p *pull) disk(ctx context.Context, server, disk string) (done bool, err error) {
	backed := true
	err = p.call(ctx, "looking at the backing file of disk "+disk, func(ctx context.Context) (err error) {
		backed, err = p.cfg.Target.Backed(ctx, server, disk)
		return err
	})
	if err != nil {
		return false, err
	}
	if !backed {
		job := p.disks[disk]
		job.DoneBytes = job.TotalBytes
		p.disks[disk] = job
		return true, nil
	}
	var job hypervisor.BlockJob
	err = p.call(ctx, "asking for the progress of disk "+disk, func(ctx context.Context) (err error) {
		job, err = p.cfg.Target.PullStatus(ctx, server, disk)
		return err
	})
	if err == nil {
		p.disks[disk] = job
		return false, nil
	}
	if !errors.Is(err, hypervisor.ErrNotFound) {
		return false, err
	}
	err = p.call(ctx, "beginning the pull of disk "+disk, func(ctx context.Context) error {
		return p.cfg.Target.PullStart(ctx, server, disk)
	})
	if errors.Is(err, hypervisor.ErrNotFound) {
		return false, nil // it has ended between the two questions; the next round sees that
	}
	return false, err
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
