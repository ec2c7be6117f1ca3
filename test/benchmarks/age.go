package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

const (
	ageServer   = "writing"
	ageRate     = 10_000_000 // bytes a second that the guest writes
	ageRecords  = 25         // a second
	ageMinutes  = 5
	ageInterval = time.Second
	ageBeat     = 10 * time.Millisecond // how often the age is looked at, in the list of points
	// ageSettled is how many points there are before the first minute begins.
	ageSettled = 5
)

// newestAge is row 6: how old the newest recovery point is, at every moment of five minutes.
func newestAge(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		minute := time.Minute
		if b.quick {
			minute /= 10
		}
		spec := lab.GuestSpec{Name: ageServer, DiskBytes: []int64{512 * mib}, RecordsPerSecond: ageRecords, RateBytes: ageRate, AnnounceEvery: ageRecords}
		if err := s.startGuest(ctx, spec); err != nil {
			return err
		}
		if err := s.protect(ctx, ageServer, ageInterval); err != nil {
			return err
		}
		if err := s.waitPoints(ctx, ageServer, ageSettled); err != nil {
			return err
		}
		before, err := s.Main.Console(ageServer).Ledger()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := pause(ctx, ageMinutes*minute); err != nil {
			return err
		}
		ended := time.Now()
		after, err := s.Main.Console(ageServer).Ledger()
		if err != nil {
			return err
		}
		points, err := s.Points(ctx, ageServer)
		if err != nil {
			return err
		}
		var minutes []float64
		for at := range time.Duration(ageMinutes) {
			minutes = append(minutes, quantile(ages(points, began.Add(at*minute), began.Add((at+1)*minute)), 0.99))
		}
		all := ages(points, began, ended)
		b.promise("age of the newest point while the guest writes 10 MB/s: p99", "s", minutes, target{2, 1.2, atMost})
		b.overall(quantile(all, 0.99))
		written := float64(after.Last-before.Last) * (ageRate / ageRecords) / ended.Sub(began).Seconds()
		b.remark(fmt.Sprintf("Interval 1 s. The figures are the p99 of each of the five parts of %v; what counts is that of the whole. Of the whole: median %s s, largest %s s, and the guest wrote %s MB/s.",
			minute, number(quantile(all, 0.5)), number(slices.Max(all)), number(written/1e6)))
		return nil
	})
}

// ages are the ages of the newest durable point between two moments, at every beat. points are newest first.
func ages(points []*umbrav1.RecoveryPoint, from, to time.Time) (seconds []float64) {
	for at := from; at.Before(to); at = at.Add(ageBeat) {
		newest := slices.IndexFunc(points, func(p *umbrav1.RecoveryPoint) bool { return !p.GetCompleteTime().AsTime().After(at) })
		if newest >= 0 {
			seconds = append(seconds, at.Sub(points[newest].GetPointTime().AsTime()).Seconds())
		}
	}
	return seconds
}

// startGuest starts a guest on the main host and waits until it has booted and can be protected.
func (s *site) startGuest(ctx context.Context, spec lab.GuestSpec) error {
	if err := s.Main.DefineGuest(ctx, spec); err != nil {
		return err
	}
	if _, err := s.Main.StartGuest(ctx, spec.Name, bootMax); err != nil {
		return err
	}
	return s.waitListed(ctx, spec.Name)
}
