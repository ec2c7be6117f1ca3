package main

import (
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

type pointsCommands struct {
	List pointsList `cmd:"" help:"List a pair's recovery points, newest first."`
}

type pointsList struct {
	Pair  string `arg:"" help:"The pair."`
	Limit int    `help:"The most to show; 0 shows all." default:"0"`
}

// Help is shown by --help.
func (pointsList) Help() string {
	return "Examples:\n  umbra points list web\n  umbra points list web --limit 20"
}

// Run lists points.
func (l pointsList) Run(c *client) error {
	points, err := c.points(l.Pair, l.Limit)
	if err != nil {
		return err
	}
	return c.print(&umbrav1.ListRecoveryPointsResponse{RecoveryPoints: points}, pointsTable(points, c.view()))
}

// points are a pair's recovery points, newest first.
func (c *client) points(pair string, most int) ([]*umbrav1.RecoveryPoint, error) {
	return pages(most, func(token string) ([]*umbrav1.RecoveryPoint, string, error) {
		answer, err := call(c, c.failover.ListRecoveryPoints, &umbrav1.ListRecoveryPointsRequest{
			Parent: pairName(pair), PageSize: pageSize, PageToken: token,
		})
		return answer.GetRecoveryPoints(), answer.GetNextPageToken(), err
	})
}

func pointsTable(points []*umbrav1.RecoveryPoint, v view) string {
	rows := make([][]string, len(points))
	for i, point := range points {
		rows[i] = []string{
			short(point.GetName()), v.at(point.GetPointTime()), v.ago(point.GetPointTime()),
			lower(point.GetConsistency().String(), "CONSISTENCY_"), size(point.GetChangedBytes()), marks(point),
		}
	}
	return table([]string{"POINT", "TIME", "AGE", "CONSISTENCY", "CHANGED", "MARKS"}, rows)
}

func marks(point *umbrav1.RecoveryPoint) string {
	var words []string
	for _, mark := range []struct {
		holds bool
		word  string
	}{{point.GetNewest(), "newest"}, {point.GetInUse(), "in use"}, {point.GetDamaged(), "DAMAGED"}} {
		if mark.holds {
			words = append(words, mark.word)
		}
	}
	if len(words) == 0 {
		return none
	}
	return strings.Join(words, ", ")
}

// choice is which recovery point to boot.
type choice struct {
	Point     string        `help:"That recovery point." xor:"point" placeholder:"ID"`
	At        string        `help:"The newest point not after that time: 2026-03-01T14:05:00+01:00, \"2026-03-01 14:05\", or 14:05 of today, in your zone." xor:"point" placeholder:"TIME"`
	BeforeAge time.Duration `help:"The newest point at least so old: 10m." xor:"point" placeholder:"AGE"`
	Force     bool          `help:"Boot a point although it is known to be damaged."`
}

// moment is the time that the point must not be after; the zero time for the newest point.
func (ch choice) moment(v view) (time.Time, error) {
	if ch.BeforeAge > 0 {
		return v.now.Add(-ch.BeforeAge), nil
	}
	if ch.At == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if at, err := time.ParseInLocation(layout, ch.At, v.zone); err == nil {
			return at, nil
		}
	}
	today := v.now.In(v.zone).Format(time.DateOnly) + " "
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04"} {
		if at, err := time.ParseInLocation(layout, today+ch.At, v.zone); err == nil {
			return at, nil
		}
	}
	return time.Time{}, usageError{"--at: " + ch.At + " is no time that is understood; see --help"}
}

// newestUntil is the first of the points, newest first, that is not after the moment.
func newestUntil(points []*umbrav1.RecoveryPoint, moment time.Time) (*umbrav1.RecoveryPoint, error) {
	for _, point := range points {
		if moment.IsZero() || !point.GetPointTime().AsTime().After(moment) {
			return point, nil
		}
	}
	return nil, errNoPoint
}

// choose is the full name of the point; "" leaves it to the control plane to take the newest.
func (c *client) choose(pair string, ch choice) (string, error) {
	moment, err := ch.moment(c.view())
	if err != nil || ch.Point != "" || moment.IsZero() {
		return pointName(pair, ch.Point), err
	}
	points, err := c.points(pair, 0)
	if err != nil {
		return "", err
	}
	point, err := newestUntil(points, moment)
	return point.GetName(), err
}
