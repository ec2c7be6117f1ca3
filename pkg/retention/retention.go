// Package retention decides which recovery points a schedule no longer wants. It is pure: points, schedule and time in, the
// points to delete out. It promises:
//
//   - The newest point is never deleted.
//   - Stable: what is deleted would not be wanted later, so that running often or rarely leaves the same points.
//   - Monotone: as time goes on, and as points are added, more is deleted and never less.
//
// For that, a spaced rule decides about whole spans and never about single points: the spans lie on multiples of the spacing
// since 1970, a span's oldest point stands for it, and the rule lets go of all of a span at once, when the last moment of the
// span has reached the rule's age. So a point may stay up to one spacing longer than the age says, and never shorter.
package retention

import "time"

// Point is what retention needs to know of a recovery point.
type Point struct {
	ID   string
	Time time.Time
}

// Rule keeps points up to an age.
type Rule struct {
	// MaxAge is the age up to which the rule keeps points.
	MaxAge time.Duration
	// Spacing is the length of the spans of which one point each is kept, the oldest. 0 keeps every point.
	Spacing time.Duration
}

// Schedule keeps a point when any of its rules keeps it.
type Schedule struct{ Rules []Rule }

// Default keeps every point for an hour, one in 15 minutes for a day, and one a day for 30 days.
func Default() Schedule {
	const day = 24 * time.Hour
	return Schedule{Rules: []Rule{
		{MaxAge: time.Hour},
		{MaxAge: day, Spacing: 15 * time.Minute},
		{MaxAge: 30 * day, Spacing: day},
	}}
}

// Select returns the ids of the points to delete, in the order of points. Points must be in the order in which they were made:
// the last is the newest. A schedule without rules keeps the newest only.
func Select(points []Point, schedule Schedule, now time.Time) []string {
	if len(points) == 0 {
		return nil
	}
	keep := make([]bool, len(points))
	keep[len(points)-1] = true
	for _, rule := range schedule.Rules {
		rule.mark(points, now, keep)
	}
	var gone []string
	for i, p := range points {
		if !keep[i] {
			gone = append(gone, p.ID)
		}
	}
	return gone
}

// mark sets keep for the points that the rule keeps.
func (r Rule) mark(points []Point, now time.Time, keep []bool) {
	if r.Spacing <= 0 {
		for i, p := range points {
			keep[i] = keep[i] || now.Sub(p.Time) < r.MaxAge
		}
		return
	}
	for _, i := range oldestOfSpans(points, r.Spacing) {
		end := time.Unix(0, (span(points[i].Time, r.Spacing)+1)*int64(r.Spacing))
		keep[i] = keep[i] || now.Sub(end) < r.MaxAge
	}
}

// oldestOfSpans returns for each span the index of its oldest point; of two that are equally old, the one made first.
func oldestOfSpans(points []Point, spacing time.Duration) map[int64]int {
	oldest := map[int64]int{}
	for i, p := range points {
		at := span(p.Time, spacing)
		if j, ok := oldest[at]; !ok || p.Time.Before(points[j].Time) {
			oldest[at] = i
		}
	}
	return oldest
}

// span is the number of the span that t lies in, rounded down also before 1970.
func span(t time.Time, spacing time.Duration) int64 {
	n, length := t.UnixNano(), int64(spacing)
	at := n / length
	if n%length < 0 {
		at--
	}
	return at
}
