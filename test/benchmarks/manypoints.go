package main

import (
	"context"
	"fmt"

	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

const (
	fewPoints       = 100
	manyPoints      = 10_000
	manyPointsQuick = 1_000
	// flat is how much a cost may grow and still be called flat: the spread between single points is larger.
	flat = 1.25
)

// manyPointsCost is row 12: taking, deleting and opening a point, when there are few and when there are many. Both stores are there
// at once and each cost is measured in both in turn: what the machine does to one, it does to the other.
func manyPointsCost(ctx context.Context, b *bench) error {
	many := manyPoints
	if b.quick {
		many = manyPointsQuick
	}
	var stores [2]*pointStore
	for i, points := range []int{fewPoints, many} {
		s, err := openPointStore(ctx, b.path("work", fmt.Sprint("points-", points)), 10*gib)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }() // it is thrown away
		// Else the store with more points would have more of the disk mapped, in more pieces, and the row would not be about points.
		if err := s.scatter(ctx); err != nil {
			return err
		}
		if _, err := s.grow(ctx, points); err != nil {
			return err
		}
		stores[i] = s
	}
	if err := settle(ctx); err != nil {
		return err
	}
	var figures [2][pointSteps][]float64
	for range costsSamples {
		for i, s := range stores {
			if err := s.cost(ctx, &figures[i]); err != nil {
				return err
			}
		}
	}
	for i, name := range [pointSteps]string{"taking", "deleting the oldest of", "opening the newest of"} {
		b.share(name+" points, when there are "+number(float64(many)), "s", figures[1][i], figures[0][i], "the same with 100 points", target{flat, 1.0, atMost})
		b.remark("Theirs is ours at 100 points. The first point holds a disk of 10 GiB that was fully written, in random order, each other one changes 1 MiB of it in 16 places; \"flat\" is taken as at most 1.25 times.")
	}
	return nil
}

const (
	// costsSamples is how often each cost is measured.
	costsSamples = 50
	// pointSteps are taking a point, deleting the oldest one and opening the newest one.
	pointSteps = 3
)

// cost adds the seconds of each step. The number of points stays.
func (s *pointStore) cost(ctx context.Context, figures *[pointSteps][]float64) error {
	oldest, viewed := s.Points()[0].ID, s.newest() // a list costs by its length
	steps := [pointSteps]func() error{
		func() error { _, err := s.take(ctx); return err },
		func() error { return s.Delete(ctx, oldest) },
		func() error { _, err := s.OpenView(ctx, viewed, recoverystore.ViewOptions{}); return err },
	}
	for i, step := range steps {
		seconds, err := timed(step)
		if err != nil {
			return err
		}
		figures[i] = append(figures[i], seconds)
	}
	return s.CloseView(ctx, viewed)
}

func (s *pointStore) newest() recoverystore.PointID {
	points := s.Points()
	return points[len(points)-1].ID
}
