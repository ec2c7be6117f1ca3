// Command umbra-soak lets Umbra do its daily work on real libvirt hosts for a while, and checks that its daemons come out as they
// went in: memory, descriptors and threads flat, no checkpoint or backup job left over, points as new as ever.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type flags struct {
	Binaries string        `help:"Folder of the commands." default:"build/bin" placeholder:"DIR"`
	For      time.Duration `help:"How long it goes on." default:"30m"`
	Every    time.Duration `help:"How often the daemons are looked at." default:"5s"`
	Table    string        `help:"A file for all figures, tab-separated." default:"build/soak.tsv" placeholder:"FILE"`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("umbra-soak"), kong.Description("The daily work for a while on real libvirt hosts: nothing grows."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "umbra-soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) (err error) {
	dir := filepath.Join("/var/tmp", "umbra-soak-"+strconv.Itoa(os.Getpid()))
	w, err := up(ctx, f, dir)
	defer func() { err = errors.Join(err, w.down(context.WithoutCancel(ctx)), os.RemoveAll(dir)) }()
	if err != nil {
		return err
	}
	working, stop := context.WithTimeout(ctx, f.For)
	defer stop()
	worked := make(chan error, 1)
	go func() {
		defer stop() // there is nothing to look at any more
		worked <- w.work(working)
	}()
	looks, err := w.watch(working, f.Every)
	if err := errors.Join(err, <-worked, ctx.Err()); err != nil {
		return err
	}
	if err := write(f.Table, looks); err != nil {
		return err
	}
	return errors.Join(judge(os.Stdout, looks), w.rest(ctx))
}
