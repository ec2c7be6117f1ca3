package main

import (
	"context"
	"fmt"
)

const (
	flatCopy = "virsh start of a flat copy"
	bootNote = "From the request to the first line of the guest's system, on emulated processors (no KVM), with the main host dead. The page cache is empty on both sides."
)

var bootTarget = target{1.2, 1.1, atMost}

// failoverTime is row 9: from the request to the guest, beside the start of a flat copy of the same point.
func failoverTime(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		p, err := s.preparePoints(ctx)
		if err != nil {
			return err
		}
		return p.compareBoots(ctx, "request of Failover to the guest's first line", p.reset, p.failOver)
	})
}

// changeTime is row 10: the same for Change Recovery Point, which also stops the server that runs.
func changeTime(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		p, err := s.preparePoints(ctx)
		if err != nil {
			return err
		}
		if err := p.reset(ctx); err != nil {
			return err
		}
		if _, err := p.failOver(ctx, p.middle()); err != nil {
			return err
		}
		toMiddle := func(ctx context.Context) error {
			_, err := p.change(ctx, p.middle())
			return err
		}
		return p.compareBoots(ctx, "Change Recovery Point to the guest's first line", toMiddle, p.change)
	})
}

// compareBoots measures at both ends of the row of points, and beside each the start of a flat copy. Each measurement is of a point
// that was not booted before, so that its view has to be made.
func (p *pointedPair) compareBoots(ctx context.Context, title string, ready func(context.Context) error, boot func(ctx context.Context, point string) (float64, error)) error {
	for _, end := range []string{newestPoint, oldestPoint} {
		var booted int
		got, err := p.bench.alternate(ctx,
			side{ourSide, ready, func(ctx context.Context) (float64, error) {
				booted++
				return boot(ctx, p.fromEnd(end, booted-1))
			}},
			side{flatCopy, nil, func(ctx context.Context) (float64, error) { return p.startFlat(ctx, end) }})
		if err != nil {
			return fmt.Errorf("the %s point: %w", end, err)
		}
		p.bench.share(fmt.Sprintf("%s, the %s of 1,000 points", title, end), "s", got[ourSide], got[flatCopy], flatCopy, bootTarget)
		p.bench.remark(bootNote)
	}
	return nil
}
