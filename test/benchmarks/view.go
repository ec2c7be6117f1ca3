package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
)

// viewTime finds the time of one round in what `go test -bench` says.
var viewTime = regexp.MustCompile(`OpenView\S*\s+\d+\s+(\d+) ns/op`)

// bigView is row 11. The index of so large a disk is made inside the store's package, by the benchmark that lies beside it: to
// make it from outside would need a terabyte of data.
func bigView(ctx context.Context, b *bench) error {
	binary := b.path("work", "store.test")
	if _, err := command(ctx, "go", "test", "-c", "-o", binary, "./pkg/recoverystore"); err != nil {
		return err
	}
	var seconds, memory []float64
	for range b.times {
		run := exec.CommandContext(ctx, binary, "-test.run=^$", "-test.bench=OpenView/1TiB/scattered", "-test.benchtime=1x")
		run.Dir = b.path("work")
		run.Env = append(run.Environ(), "TMPDIR="+b.path("work"))
		out, err := finish(run)
		if err != nil {
			return err
		}
		found := viewTime.FindStringSubmatch(out)
		if found == nil {
			return fmt.Errorf("the benchmark says no time: %s", out)
		}
		ns, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			return err
		}
		seconds = append(seconds, ns/1e9)
		if usage, ok := run.ProcessState.SysUsage().(*syscall.Rusage); ok {
			memory = append(memory, float64(usage.Maxrss)/1024)
		}
	}
	b.promise("view of a fully written 1 TiB disk with 1,000 points", "s", seconds, target{1, 0.3, atMost})
	b.remark("Every cluster lies apart from its neighbour, the worst case. The tables are on stable storage at the end.")
	b.promise("memory of the process that makes that view", "MiB", memory, target{512, 512, atMost})
	b.remark("Its largest resident set, with the pages of the index that it has mapped and with making the index.")
	return nil
}
