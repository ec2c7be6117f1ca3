package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writePage writes the page with a plot for each row that was measured.
func writePage(dir string, r *results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	var page strings.Builder
	page.WriteString(pageHead)
	page.WriteString("| # | what | ours: median (min–max) | theirs: median (min–max) | unit | ratio | must reach | holds |\n|---|---|---|---|---|---|---|---|\n")
	for _, x := range r.all {
		page.WriteString(tableLine(x))
	}
	var failed []error
	for _, one := range allRows() {
		fmt.Fprintf(&page, "\n## %d. %s\n\n", one.number, one.title)
		var bars []result
		for _, x := range r.all {
			if x.Row == one.number && x.Ours != nil {
				bars = append(bars, x)
			}
		}
		if len(bars) == 0 {
			page.WriteString(strings.TrimSpace("Not measured yet. "+one.about) + "\n")
			continue
		}
		name := fmt.Sprintf("row-%02d.svg", one.number)
		failed = append(failed, os.WriteFile(filepath.Join(dir, name), []byte(plot(bars)), 0o644))
		fmt.Fprintf(&page, "![row %d](%s)\n\n%s\n", one.number, name, one.about)
		for _, x := range bars {
			fmt.Fprintf(&page, "\n- %s: measured %d times on %s", x.Name, x.Times, x.MeasuredAt.Format("2006-01-02"))
			if x.Peer != "" {
				fmt.Fprintf(&page, ", against %s", x.Peer)
			}
			fmt.Fprintf(&page, ". %s", x.Note)
		}
		page.WriteString("\n")
	}
	failed = append(failed, os.WriteFile(filepath.Join(dir, "README.md"), []byte(page.String()), 0o644))
	return errors.Join(failed...)
}

const pageHead = `# Benchmarks

Written by ` + "`make bench`" + `; do not edit. Both sides of a comparison are measured in the same run, on the same data, in turn. Before each
measurement of two tools nothing is left to write and the page cache is empty; at its end the data is on stable storage on both sides. Ratios hold on other
machines better than figures do. What is reached and what is not is in the last column; nothing is left out.

`

func tableLine(x result) string {
	if x.Ours == nil {
		return fmt.Sprintf("| %d | %s | %s | | | | %s %s | NO |\n", x.Row, x.Name, notMeasured, x.Sense, number(x.MustReach))
	}
	theirs := "–"
	if x.Theirs != nil {
		theirs = x.Theirs.String()
	}
	return fmt.Sprintf("| %d | %s | %s | %s | %s | %s | %s %s | %s |\n",
		x.Row, x.Name, x.Ours, theirs, x.Unit, number(x.Ratio), x.Sense, number(x.MustReach), yesNo(x.Holds))
}

// String is the median with the spread.
func (f figure) String() string { return number(f.Median) + " (" + f.spread() + ")" }
