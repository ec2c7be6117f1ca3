package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"
)

// bench is one row under way.
type bench struct {
	row      row
	quick    bool
	times    int
	dir      string // of this run; cleared before and after
	binaries string
	builds   string // for comparing builds with one another
	results  []result
}

// rowMax bounds a row, whatever hangs in it.
const rowMax = 30 * time.Minute

// measure runs the row in a folder of its own.
func (b *bench) measure(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, rowMax)
	defer stop()
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(b.path("work")) }() // what is left there is of no use to anybody
	if err := os.RemoveAll(b.path("work")); err != nil {
		return fmt.Errorf("clear the folder: %w", err)
	}
	if err := os.MkdirAll(b.path("work"), 0o755); err != nil {
		return fmt.Errorf("make a folder: %w", err)
	}
	took, err := timed(func() error { return b.row.run(ctx, b) })
	for i := range b.results {
		b.results[i].RowSeconds = math.Round(took)
	}
	b.note("the row took %.0f s", took)
	return err
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

// note tells a person what goes on.
func (b *bench) note(format string, args ...any) { fmt.Printf("  "+format+"\n", args...) }
