package retention_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/umbra-dr/umbra/pkg/retention"
)

var start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func drawSchedule(t *rapid.T) retention.Schedule {
	rules := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) retention.Rule {
		return retention.Rule{
			MaxAge:  time.Duration(rapid.IntRange(1, 200).Draw(t, "age")) * time.Second,
			Spacing: time.Duration(rapid.SampledFrom([]int{0, 1, 3, 10, 60, 150, 400}).Draw(t, "spacing")) * time.Second,
		}
	}), 0, 4).Draw(t, "rules")
	return retention.Schedule{Rules: rules}
}

// drawPoints draws points in the order of time, some at the same moment.
func drawPoints(t *rapid.T) []retention.Point {
	var points []retention.Point
	at := start
	for i := range rapid.IntRange(0, 40).Draw(t, "points") {
		at = at.Add(time.Duration(rapid.IntRange(0, 20_000).Draw(t, "gap")) * time.Millisecond)
		points = append(points, retention.Point{ID: fmt.Sprint(i), Time: at})
	}
	return points
}

func drawNow(t *rapid.T, label string) time.Time {
	return start.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, label)) * time.Second)
}

func without(points []retention.Point, gone []string) []retention.Point {
	deleted := map[string]bool{}
	for _, id := range gone {
		deleted[id] = true
	}
	return slices.DeleteFunc(slices.Clone(points), func(p retention.Point) bool { return deleted[p.ID] })
}

func TestTheNewestPointIsNeverDeleted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points := drawPoints(t)
		gone := retention.Select(points, drawSchedule(t), drawNow(t, "now"))
		if len(points) > 0 && slices.Contains(gone, points[len(points)-1].ID) {
			t.Fatal("the newest was deleted")
		}
	})
}

// A host that ran retention at every moment of its life is left with the points of one that runs it once, at the end.
func TestRunningOftenOrRarelyLeavesTheSamePoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all, schedule := drawPoints(t), drawSchedule(t)
		var kept []retention.Point
		now := start
		for _, p := range all {
			now = p.Time
			kept = append(kept, p)
			if rapid.Bool().Draw(t, "run") {
				kept = without(kept, retention.Select(kept, schedule, now))
			}
		}
		for range 3 {
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "later")) * time.Second)
			kept = without(kept, retention.Select(kept, schedule, now))
			once := without(all, retention.Select(all, schedule, now))
			if diff := cmp.Diff(once, kept); diff != "" {
				t.Fatalf("run once (-), run often (+):\n%s", diff)
			}
		}
	})
}

func TestMoreTimeAndMorePointsDeleteMoreAndNeverLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points, schedule := drawPoints(t), drawSchedule(t)
		now := drawNow(t, "now")
		later := now.Add(time.Duration(rapid.IntRange(0, 500).Draw(t, "later")) * time.Second)
		fewer := points[:rapid.IntRange(0, len(points)).Draw(t, "fewer")]
		more := retention.Select(points, schedule, later)
		for _, id := range retention.Select(fewer, schedule, now) {
			if !slices.Contains(more, id) {
				t.Fatalf("point %s was deleted, and is wanted later", id)
			}
		}
	})
}

// Against the rules as a person reads them: whatever is younger than a rule's age is kept if it is the first of its span.
func TestNoRuleLetsGoOfAPointTooEarlyOrMuchTooLate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		points, schedule, now := drawPoints(t), drawSchedule(t), drawNow(t, "now")
		gone := retention.Select(points, schedule, now)
		for i, p := range points[:max(len(points)-1, 0)] {
			must, may := false, false
			for _, r := range schedule.Rules {
				first := r.Spacing == 0 || i == 0 || !p.Time.Truncate(r.Spacing).Equal(points[i-1].Time.Truncate(r.Spacing))
				must = must || first && now.Sub(p.Time) < r.MaxAge
				may = may || first && now.Sub(p.Time) < r.MaxAge+r.Spacing
			}
			deleted := slices.Contains(gone, p.ID)
			if must && deleted || !may && !deleted {
				t.Fatalf("point %s: deleted %v, must be kept %v, may be kept %v", p.ID, deleted, must, may)
			}
		}
	})
}

func TestTheDefaultScheduleOverAMonth(t *testing.T) {
	var points []retention.Point
	end := start.Add(40 * 24 * time.Hour)
	for at := start; at.Before(end); at = at.Add(time.Minute) {
		points = append(points, retention.Point{ID: at.Format(time.RFC3339), Time: at})
	}
	kept := without(points, retention.Select(points, retention.Default(), end))
	count := func(from, to time.Duration) (n int) {
		for _, p := range kept {
			if age := end.Sub(p.Time); age >= from && age < to {
				n++
			}
		}
		return n
	}
	const day = 24 * time.Hour
	got := []int{count(0, time.Hour), count(time.Hour, day), count(day+15*time.Minute, 31*day), count(32*day, 400*day)}
	if diff := cmp.Diff([]int{59, 92, 29, 0}, got); diff != "" {
		t.Errorf("points of the last hour, day, month, and before: %s", diff)
	}
}
