package main

import (
	"context"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	fewPoints       = 100
	manyPoints      = 10_000
	manyPointsQuick = 1_000
	// flat is how much a cost may grow and still be called flat: the spread between single points is larger.
	flat = 1.25
)

// manyPointsCost is row 12: taking, deleting and opening a point, when there are few and when there are many.
func manyPointsCost(ctx context.Context, b *bench) error {
	many := manyPoints
	if b.quick {
		many = manyPointsQuick
	}
	s, err := openPointStore(ctx, b.path("work", "many"), 10*gib)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // it is thrown away
	if err := settle(ctx); err != nil {
		return err
	}
	if _, err := s.grow(ctx, fewPoints); err != nil {
		return err
	}
	few, err := s.costs(ctx)
	if err != nil {
		return err
	}
	if _, err := s.grow(ctx, many); err != nil {
		return err
	}
	lots, err := s.costs(ctx)
	if err != nil {
		return err
	}
	for i, name := range []string{"taking", "deleting the oldest of", "opening the newest of"} {
		b.share(name+" points, when there are "+number(float64(many)), "s", lots[i], few[i], "the same with 100 points", target{flat, 1.0, atMost})
		b.remark("Theirs is ours at 100 points. A point changes 1 MiB in 16 places of a 10 GiB disk; \"flat\" is taken as at most 1.25 times.")
	}
	return nil
}

// costsSamples is how often each cost is measured.
const costsSamples = 50

// costs measures taking a point, deleting the oldest one and opening the newest one. The number of points stays.
func (s *pointStore) costs(ctx context.Context) (figures [3][]float64, err error) {
	for range costsSamples {
		oldest, viewed := s.Points()[0].ID, s.newest() // a list costs by its length
		steps := [3]func() error{
			func() error { _, err := s.take(ctx); return err },
			func() error { return s.Delete(ctx, oldest) },
			func() error { _, err := s.OpenView(ctx, viewed, recoverystore.ViewOptions{}); return err },
		}
		for i, step := range steps {
			seconds, err := timed(step)
			if err != nil {
				return figures, err
			}
			figures[i] = append(figures[i], seconds)
		}
		if err := s.CloseView(ctx, viewed); err != nil {
			return figures, err
		}
	}
	return figures, nil
}

func (s *pointStore) newest() recoverystore.PointID {
	points := s.Points()
	return points[len(points)-1].ID
}
