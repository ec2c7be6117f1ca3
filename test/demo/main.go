// Command umbra-demo walks through the main job on real libvirt hosts: it protects a running server, kills its host,
// fails over, checks the data, changes the recovery point, and commits. Everything that Umbra is asked is asked
// through its public API with grpcurl, and every command is shown.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/test/landscape"
)

type flags struct {
	Dir      string `help:"Folder of the lab. It is cleared first, and must be reachable by the user that QEMU runs as." default:"/var/tmp/umbra-demo" placeholder:"DIR"`
	Name     string `help:"What the lab, its namespaces and its hosts are called by." default:"demo" placeholder:"NAME"`
	Binaries string `help:"Folder of the commands." default:"build/bin" placeholder:"DIR"`
	Grpcurl  string `help:"The grpcurl command." default:"build/tools/grpcurl" placeholder:"FILE"`
	Down     bool   `help:"Take the lab down at the end, instead of leaving it for you to play with."`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("umbra-demo"), kong.Description("The main job of Umbra, end to end, on this machine."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo has stopped:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) error {
	began := time.Now()
	say("Umbra keeps a shadow of a running server on another host. This demo runs two real libvirt hosts, the control")
	say("plane and a guest on this machine, in namespaces of their own. Nothing else of the machine is touched.")
	title("1. Bring up two hosts, hostd on each, and the control plane")
	scape, err := landscape.Up(ctx, landscape.Config{
		Name: f.Name, Dir: f.Dir, CacheDir: filepath.Join(filepath.Dir(f.Dir), "umbra-lab-cache"), Binaries: f.Binaries,
	})
	if err != nil {
		return err
	}
	d := &demo{scape: scape, grpcurl: f.Grpcurl, began: began}
	d.done("everything is up")
	err = d.walk(ctx)
	switch {
	case f.Down:
		say("\nTaking the lab down.")
		err = errors.Join(err, scape.Down(context.WithoutCancel(ctx)))
	case err != nil:
		say("\nThe lab is left as it is. Logs are in %s/*/*.log; umbra-lab --dir %s down takes it down.", f.Dir, f.Dir)
	}
	if err == nil {
		d.summary(f)
	}
	return err
}

func say(format string, args ...any) { fmt.Printf(format+"\n", args...) }

func title(text string) { fmt.Printf("\n\033[1m== %s\033[0m\n", text) }
