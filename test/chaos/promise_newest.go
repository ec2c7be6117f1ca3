package chaos

import (
	"context"
	"fmt"
	"time"
)

// checkNewest: every point that was listed before the fault is still there, unless the policy or a request has removed
// it, and none is damaged.
func checkNewest(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil || pair == nil {
		return err
	}
	points, err := w.points(ctx)
	if err != nil {
		return err
	}
	now := map[string]bool{}
	for _, p := range points {
		now[p.GetName()] = true
		if p.GetDamaged() {
			return fmt.Errorf("%s is damaged", p.GetName())
		}
	}
	before := w.history.before
	if before.deleting || len(before.points) == 0 {
		return nil
	}
	if len(points) == 0 {
		return fmt.Errorf("no point is left, there were %d", len(before.points))
	}
	if was, is := before.points[0].GetPointTime().AsTime(), points[0].GetPointTime().AsTime(); is.Before(was) {
		return fmt.Errorf("the newest point is of %v, before the fault there was one of %v", is, was)
	}
	for _, p := range before.points {
		// With a margin, since retention looks at its own moment.
		if time.Since(p.GetPointTime().AsTime()) < keepAll-time.Second && !now[p.GetName()] {
			return fmt.Errorf("%s is gone, although the policy keeps every point of the last %v", p.GetName(), keepAll)
		}
	}
	return nil
}
