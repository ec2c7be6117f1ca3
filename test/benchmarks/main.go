// Command umbra-benchmarks measures Umbra beside what its users have today, on the lab's two libvirt hosts. Each row of the
// table is measured on both sides in the same run, alternately, on the same data. It writes the table to the terminal,
// the figures to a JSON file, and a page with plots. Rows that are not run keep the figures of their last run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// options are the flags.
type options struct {
	rows     rowSet
	quick    bool
	times    int
	dir      string
	binaries string
	results  string
	builds   string
	page     string
	tables   bool
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "node" {
		exit(node(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "fetch" {
		exit(fetch(os.Args[2:]))
	}
	var o options
	flag.Var(&o.rows, "rows", "rows to run, in their order, such as 8,1,4 (default all)")
	flag.BoolVar(&o.quick, "quick", false, "smaller disks; without -rows, only the rows that are short, all together within five minutes")
	flag.IntVar(&o.times, "times", 5, "how often each side is measured")
	flag.StringVar(&o.dir, "dir", "/var/tmp/umbra-bench", "folder for disks, stores and the lab; it needs 60 GB")
	flag.StringVar(&o.binaries, "binaries", "build/bin", "folder of the commands")
	flag.StringVar(&o.builds, "builds", "", "rows 1 and 2: compare builds of this command, such as before=FILE,after=FILE, instead of peers")
	flag.StringVar(&o.results, "results", "test/benchmarks/results.json", "file of the figures")
	flag.StringVar(&o.page, "page", "docs/benchmarks", "folder of the page with the plots")
	flag.BoolVar(&o.tables, "tables", false, "measure nothing: write the table and the page anew from the figures that are there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "umbra-benchmarks:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures the chosen rows. A row that fails does not keep the others from being measured and written.
func run(ctx context.Context, o options) error {
	kept, err := loadResults(o.results)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	binaries, err := filepath.Abs(o.binaries)
	if err != nil {
		return err
	}
	var failed []error
	for _, r := range o.rows.choose(allRows()) {
		if o.tables || r.run == nil || (o.quick && len(o.rows) == 0 && !r.quick) {
			continue
		}
		b := &bench{row: r, quick: o.quick, times: o.times, dir: dir, binaries: binaries, builds: o.builds}
		fmt.Printf("row %d: %s\n", r.number, r.title)
		if err := b.measure(ctx); err != nil {
			failed = append(failed, fmt.Errorf("row %d: %w", r.number, err))
			fmt.Printf("  failed: %v\n", err)
		}
		kept.take(r.number, b.results)
		if err := errors.Join(kept.save(o.results), writePage(o.page, kept)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	kept.complete()
	if err := kept.save(o.results); err != nil {
		return err
	}
	if err := kept.print(os.Stdout); err != nil {
		return err
	}
	return errors.Join(append(failed, writePage(o.page, kept))...)
}
