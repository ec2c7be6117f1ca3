// Command umbra-lab brings the lab up and down and looks into it: two libvirt hosts on this computer, in
// namespaces of their own. It needs root.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/pkg/lab"
)

type commands struct {
	Dir string `help:"Folder of the lab." default:"build/lab" type:"path"`

	Up      upCommand      `cmd:"" help:"Bring the lab up; what a crashed one left in its folder is cleared away first."`
	Down    downCommand    `cmd:"" help:"Take the lab down; nothing of it is left."`
	Status  statusCommand  `cmd:"" help:"Show the machines, their services and their guests."`
	Exec    execCommand    `cmd:"" help:"Run a command on a machine."`
	Console consoleCommand `cmd:"" help:"Show the serial console of a guest."`
	Guest   guestCommand   `cmd:"" help:"Define and start a guest that keeps a ledger."`
	Kill    killCommand    `cmd:"" help:"Cut the power of a host."`
	Revive  reviveCommand  `cmd:"" help:"Boot a host that was killed."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	var given commands
	parsed := kong.Parse(&given, kong.Name("umbra-lab"), kong.Description("Two libvirt hosts on one computer."))
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.BindTo(os.Stdout, (*io.Writer)(nil))
	err := parsed.Run(&given)
	stop()
	var failed commandFailed
	if errors.As(err, &failed) {
		os.Exit(failed.code)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "umbra-lab:", err)
		os.Exit(1)
	}
}

// host returns the host of that name.
func host(l *lab.Lab, name string) (*lab.Host, error) {
	for _, h := range l.Hosts() {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fmt.Errorf("no host is called %q; there are main and shadow", name)
}

// attach returns the running lab and one of its hosts.
func attach(dir, name string) (*lab.Host, error) {
	l, err := lab.Attach(dir)
	if err != nil {
		return nil, err
	}
	return host(l, name)
}
