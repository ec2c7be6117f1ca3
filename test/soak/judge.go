package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
)

// What may be between the middle third of a run and its last third. Memory is that of Go's collector, which breathes.
const (
	memoryGrowthShare = 0.10
	memoryGrowthBytes = 8 << 20
	countGrowth       = 3
)

// judge compares the medians of a run's last two thirds, process by process: the first third is for warming up. It writes a
// table, and the error names what has grown.
func judge(to io.Writer, looks []look) error {
	table := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	// What cannot be written shows when the table is flushed.
	_, _ = fmt.Fprintln(table, "process\tmemory: middle third\tlast third\tdescriptors\tlast third\tthreads\tlast third")
	var grown []error
	for _, process := range processes(looks) {
		own := slices.DeleteFunc(slices.Clone(looks), func(l look) bool { return l.process != process })
		middle, last := own[len(own)/3:len(own)*2/3], own[len(own)*2/3:]
		if len(middle) == 0 {
			return fmt.Errorf("only %d looks at %s: too few to judge", len(own), process)
		}
		memory := func(l look) int64 { return l.memoryBytes }
		descriptors := func(l look) int64 { return l.descriptors }
		threads := func(l look) int64 { return l.threads }
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%d\n", process,
			humanize.IBytes(uint64(median(middle, memory))), humanize.IBytes(uint64(median(last, memory))), //nolint:gosec // not negative
			median(middle, descriptors), median(last, descriptors), median(middle, threads), median(last, threads))
		before := median(middle, memory)
		if by := median(last, memory) - before; by > memoryGrowthBytes+int64(memoryGrowthShare*float64(before)) {
			grown = append(grown, fmt.Errorf("the memory of %s has grown by %s", process, humanize.IBytes(uint64(by)))) //nolint:gosec // positive
		}
		for what, of := range map[string]func(look) int64{"descriptors": descriptors, "threads": threads} {
			if by := median(last, of) - median(middle, of); by > countGrowth {
				grown = append(grown, fmt.Errorf("%s has %d more %s", process, by, what))
			}
		}
	}
	return errors.Join(append(grown, table.Flush())...)
}

func processes(looks []look) (names []string) {
	for _, l := range looks {
		if !slices.Contains(names, l.process) {
			names = append(names, l.process)
		}
	}
	slices.Sort(names)
	return names
}

func median(looks []look, of func(look) int64) int64 {
	values := make([]int64, len(looks))
	for i, l := range looks {
		values[i] = of(l)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
