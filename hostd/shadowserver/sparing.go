package shadowserver

import (
	"context"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const (
	// sparingInterval is how long the server is watched before it counts as at work or not.
	sparingInterval = time.Second
	// atWorkRequests is how many requests a second mean that it is at work.
	atWorkRequests = 10
	// copyLimitMin is the least that a copy is limited to, in bytes a second: it has to end.
	copyLimitMin = 16 << 20
)

// sparing limits a copy while its server is at work: to the share costMax of the speed that it has without a limit, so that the
// disk is the server's for the rest of the time. The copy of a server that does next to nothing has no limit. A full copy on the
// main host makes way too, by other means (hostd/replicate).
type sparing struct {
	costMax float64
	limit   int64   // bytes a second as it is set; 0: none
	full    float64 // bytes a second without a limit, as last seen

	since time.Time
	done  int64
	io    hypervisor.IOCounters
}

// look takes what the copy and the server have done so far, and returns the limit from now on.
func (s *sparing) look(now time.Time, done int64, io hypervisor.IOCounters) int64 {
	elapsed := now.Sub(s.since)
	if !s.since.IsZero() && elapsed < sparingInterval {
		return s.limit
	}
	limit := s.limit
	if !s.since.IsZero() {
		atWork := float64(io.Requests-s.io.Requests) >= atWorkRequests*elapsed.Seconds()
		if s.limit == 0 {
			s.full = float64(done-s.done) / elapsed.Seconds()
		}
		switch {
		case !atWork || s.costMax >= 1:
			limit = 0
		case s.limit == 0:
			limit = max(int64(s.costMax*s.full), copyLimitMin)
		}
	}
	s.since, s.done, s.io = now, done, io
	return limit
}

// spare sets the limit of the copy that runs. A server whose requests cannot be told is copied at full speed.
func (f *flattening) spare(ctx context.Context, server string, d hypervisor.Disk) error {
	bounded, cancel := context.WithTimeout(ctx, callTimeout)
	io, err := f.cfg.Target.IOCounters(bounded, server)
	cancel()
	if err != nil {
		f.log.Debug("what the server does cannot be told, its disks are copied at the speed they are", "error", err)
		return nil
	}
	limit := f.sparing.look(f.cfg.Clock.Now(), f.disks[d.Target].DoneBytes, io)
	if limit == f.sparing.limit {
		return nil
	}
	if err := f.limitCopy(ctx, server, d, limit); err != nil {
		return err
	}
	f.log.Info("the copy of a disk makes way for the server, or needs not to any more", "disk", d.Target, "bytes_per_second_max", limit)
	f.sparing.limit = limit
	return nil
}

func (f *flattening) limitCopy(ctx context.Context, server string, d hypervisor.Disk, limit int64) error {
	return f.call(ctx, "limiting the copy of disk "+d.Target, func(ctx context.Context) error {
		return f.cfg.Target.CopyLimit(ctx, server, d.Target, limit)
	})
}
