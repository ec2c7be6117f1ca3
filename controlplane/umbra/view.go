package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// view is the moment at which things are shown, and the zone of the times.
type view struct {
	now  time.Time
	zone *time.Location
}

const none = "-"

// at is a moment, with its zone.
func (v view) at(t *timestamppb.Timestamp) string {
	if t == nil {
		return none
	}
	return t.AsTime().In(v.zone).Format("2006-01-02 15:04:05 MST")
}

// ago is the age of a moment.
func (v view) ago(t *timestamppb.Timestamp) string {
	if t == nil {
		return none
	}
	return length(v.now.Sub(t.AsTime()))
}

// length is a duration in at most two units.
func length(d time.Duration) string {
	const day = 24 * time.Hour
	d = max(0, d)
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

func size(n int64) string { return humanize.IBytes(uint64(max(0, n))) } //nolint:gosec // not negative

// word is a value of an enum without its prefix: the form that is grepped for.
func word(value, prefix string) string { return strings.TrimPrefix(value, prefix) }

// lower is a value of an enum as people read it.
func lower(value, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(value, prefix), "_", " "))
}

// table aligns rows of cells under a header.
func table(header []string, rows [][]string) string {
	var text strings.Builder
	out := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		_, _ = fmt.Fprintln(out, strings.Join(row, "\t"))
	}
	_ = out.Flush() // a strings.Builder takes everything
	return text.String()
}

// page aligns titles and what belongs to them; a row without a second cell, or with an empty one, is left out.
func page(rows [][2]string) string {
	var text strings.Builder
	for _, row := range rows {
		if row[1] != "" {
			fmt.Fprintf(&text, "%-12s %s\n", row[0], row[1])
		}
	}
	return text.String()
}
