package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab"
)

type execCommand struct {
	Host    string   `arg:"" help:"main, shadow or control."`
	Command []string `arg:"" passthrough:"" help:"Command and its arguments, after --."`
}

func (c *execCommand) Run(ctx context.Context, out io.Writer, given *commands) error {
	l, err := lab.Attach(given.Dir)
	if err != nil {
		return err
	}
	machine := l.Control
	if c.Host != machine.Name {
		h, err := host(l, c.Host)
		if err != nil {
			return err
		}
		machine = h.Machine
	}
	words := c.Command
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		return fmt.Errorf("no command was given")
	}
	command := machine.Command(ctx, words[0], words[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, out, os.Stderr
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return commandFailed{exit.ExitCode()}
	}
	return err
}

// commandFailed says that a command on a machine has spoken for itself; umbra-lab ends with its code.
type commandFailed struct{ code int }

func (f commandFailed) Error() string { return fmt.Sprintf("the command ended with code %d", f.code) }

type consoleCommand struct {
	Host   string `arg:"" help:"main or shadow."`
	Guest  string `arg:"" help:"Name of the guest."`
	Follow bool   `help:"Go on until interrupted." short:"f"`
}

func (c *consoleCommand) Run(ctx context.Context, out io.Writer, given *commands) error {
	h, err := attach(given.Dir, c.Host)
	if err != nil {
		return err
	}
	log := h.Console(c.Guest)
	if c.Follow {
		return log.Follow(ctx, out)
	}
	file, err := os.Open(log.Path())
	if err != nil {
		return fmt.Errorf("console of %s: %w", c.Guest, err)
	}
	defer func() { _ = file.Close() }() // read only
	_, err = io.Copy(out, file)
	return err
}

type guestCommand struct {
	Host    string        `arg:"" help:"main or shadow."`
	Guest   string        `arg:"" help:"Name of the guest."`
	Disks   []int64       `help:"Size of each disk in MiB." default:"256"`
	Rate    int           `help:"Records a second." default:"25"`
	Bytes   int64         `help:"Bytes a second; one block a record when 0."`
	Address string        `help:"Address of its interface with the length of the prefix, for example 198.19.0.10/24."`
	Timeout time.Duration `help:"How long it may take to boot." default:"60s"`
}

func (c *guestCommand) Run(ctx context.Context, out io.Writer, given *commands) error {
	h, err := attach(given.Dir, c.Host)
	if err != nil {
		return err
	}
	spec := lab.GuestSpec{Name: c.Guest, RecordsPerSecond: c.Rate, RateBytes: c.Bytes}
	for _, size := range c.Disks {
		spec.DiskBytes = append(spec.DiskBytes, size<<20)
	}
	if c.Address != "" {
		if spec.Address, err = netip.ParsePrefix(c.Address); err != nil {
			return fmt.Errorf("address of the guest: %w", err)
		}
	}
	if err := h.DefineGuest(ctx, spec); err != nil {
		return err
	}
	report, err := h.StartGuest(ctx, c.Guest, c.Timeout)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, report.Boot())
	return err
}
