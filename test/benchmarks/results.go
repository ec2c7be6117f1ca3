package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// results are the newest figures of every row.
type results struct{ all []result }

func loadResults(path string) (*results, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return &results{}, nil
	}
	r := &results{}
	if err == nil {
		err = json.Unmarshal(text, &r.all)
	}
	if err != nil {
		return nil, fmt.Errorf("read earlier figures: %w", err)
	}
	return r, nil
}

// complete lists every row that has no figures as not measured.
func (r *results) complete() {
	for _, row := range allRows() {
		if !slices.ContainsFunc(r.all, func(x result) bool { return x.Row == row.number }) {
			t := row.target
			r.all = append(r.all, result{Row: row.number, Name: row.title, MustReach: t.must, AimFor: t.aim, Sense: t.sense, Note: notMeasured})
		}
	}
	slices.SortStableFunc(r.all, func(a, b result) int { return a.Row - b.Row })
}

const notMeasured = "not measured"

// take replaces the figures of a row. Those of a row that gave none stay.
func (r *results) take(number int, fresh []result) {
	if len(fresh) == 0 {
		return
	}
	r.all = slices.DeleteFunc(r.all, func(old result) bool { return old.Row == number })
	r.all = append(r.all, fresh...)
	r.complete()
}

func (r *results) save(path string) error {
	text, err := json.MarshalIndent(r.all, "", "  ")
	// Whenever a run is cut off, there is a whole file.
	if err == nil {
		err = os.WriteFile(path+".new", append(text, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("keep the figures: %w", err)
	}
	return nil
}

// print writes the table for a terminal.
func (r *results) print(to io.Writer) error {
	var lines strings.Builder
	fmt.Fprintln(&lines, "\nROW\tWHAT\tOURS\tSPREAD\tTHEIRS\tSPREAD\tUNIT\tRATIO\tMUST REACH\tHOLDS\tMEASURED")
	for _, x := range r.all {
		if x.Ours == nil {
			fmt.Fprintf(&lines, "%d\t%s\t%s\t\t\t\t\t\t%s %s\t%s\t\n", x.Row, x.Name, notMeasured, x.Sense, number(x.MustReach), yesNo(false))
			continue
		}
		theirs, spread := "–", "–"
		if x.Theirs != nil {
			theirs, spread = number(x.Theirs.Median), x.Theirs.spread()
		}
		fmt.Fprintf(&lines, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s %s\t%s\t%s\n", x.Row, x.Name, number(x.Ours.Median), x.Ours.spread(),
			theirs, spread, x.Unit, number(x.Ratio), x.Sense, number(x.MustReach), yesNo(x.Holds), x.MeasuredAt.Format("2006-01-02 15:04"))
	}
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, err := io.WriteString(table, lines.String())
	return errors.Join(err, table.Flush())
}

func (f figure) spread() string { return number(f.Min) + "–" + number(f.Max) }

func number(x float64) string {
	switch {
	case x >= 1000:
		return fmt.Sprintf("%.0f", x)
	case x >= 100:
		return fmt.Sprintf("%.1f", x)
	case x >= 0.1:
		return fmt.Sprintf("%.2f", x)
	}
	return fmt.Sprintf("%.2g", x)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}
