package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
)

// viewFigures are what `go test -bench` says of one round: nanoseconds for the view, MiB of its
// own memory, seconds for opening the store.
var viewFigures = regexp.MustCompile(`LargeView\S*\s+\d+\s+(\d+) ns/op\s+(\S+) MiB-own\s+(\S+) s-open`)

// bigView is row 11. The index of so large a disk is made inside the store's package, by the benchmark that lies beside it: to
// make it from outside would need a terabyte of data. One process makes it; every figure comes from another.
func bigView(ctx context.Context, b *bench) error {
	binary := b.path("work", "store.test")
	if _, err := command(ctx, "go", "test", "-c", "-o", binary, "./pkg/recoverystore"); err != nil {
		return err
	}
	if _, err := b.largeView(ctx, binary); err != nil {
		return err
	}
	var figures [4][]float64
	for range b.times {
		if err := settle(ctx); err != nil {
			return err
		}
		one, err := b.largeView(ctx, binary)
		if err != nil {
			return err
		}
		b.note("view %.3g s, own memory %.0f MiB, opening the store %.3g s, resident set %.0f MiB", one[0], one[1], one[2], one[3])
		for i := range figures {
			figures[i] = append(figures[i], one[i])
		}
	}
	b.promise("view of a fully written 1 TiB disk with 1,000 points", "s", figures[0], target{1, 0.3, atMost})
	b.remark(fmt.Sprintf("Every cluster lies apart from its neighbour, the worst case. The tables are on stable storage at the end. Opening the store, which reads and checks its whole index, takes %s s "+
		"from an empty page cache; it is done once in the life of hostd.", number(figureOf(figures[2]).Median)))
	b.promise("memory of its own of the process that opens that store and makes the view", "MiB", figures[1], target{512, 512, atMost})
	b.remark("All that the process has ever asked the system for, except for the mapped index. The store was made by another process.")
	b.promise("largest resident set of that process", "MiB", figures[3], target{512, 512, atMost})
	b.remark("With the pages of the index that it has mapped, which is 683 MiB large. A pass over it lets go of them as it goes; they stay in the page cache.")
	return nil
}

// largeView runs the benchmark once, in a process of its own: seconds, MiB, seconds, MiB.
func (b *bench) largeView(ctx context.Context, binary string) (figures [4]float64, err error) {
	run := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench=LargeView", "-test.benchtime=1x", "-large="+b.path("work", "large"))
	run.Dir = b.path("work")
	run.Env = append(run.Environ(), "TMPDIR="+b.path("work"))
	out, err := finish(run)
	if err != nil {
		return figures, err
	}
	found := viewFigures.FindStringSubmatch(out)
	if found == nil {
		return figures, fmt.Errorf("the benchmark says no figures: %s", out)
	}
	for i, text := range found[1:] {
		if figures[i], err = strconv.ParseFloat(text, 64); err != nil {
			return figures, err
		}
	}
	figures[0] /= 1e9
	if usage, ok := run.ProcessState.SysUsage().(*syscall.Rusage); ok {
		figures[3] = float64(usage.Maxrss) / 1024
	}
	return figures, nil
}
