// Command umbra is the command-line client of Umbra. It shows pairs, recovery points, hosts and operations, and carries out
// what is done on the day that a main server cannot operate.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/willabides/kongplete"
	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/about"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/settings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], console{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, clock: clock.System, zone: time.Local,
		settings: ownFile(), asks: isTerminal(os.Stdin) && isTerminal(os.Stderr), redraws: isTerminal(os.Stderr),
	})
	stop()
	os.Exit(code)
}

// console is where a command reads and writes. What a command was asked for goes to out; what is said meanwhile, to err.
type console struct {
	in       io.Reader
	out, err io.Writer
	clock    clock.Clock
	zone     *time.Location
	settings string // the file of the person's settings, if there is one
	asks     bool   // a person can be asked
	redraws  bool   // err is a terminal, on which a line can be drawn again
}

// ownFile is where the settings of whoever runs this are.
func ownFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "" // it has no home
	}
	return filepath.Join(dir, "umbra", "umbra.yaml")
}

// view is the moment at which things are shown, and the zone of the times.
func (c console) view() view { return view{now: c.clock.Now(), zone: c.zone} }

func isTerminal(file *os.File) bool {
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS) //nolint:gosec // a file descriptor is small
	return err == nil
}

// run carries out one command line and returns the exit code.
func run(ctx context.Context, args []string, at console) int {
	var line commands
	exited := -1
	parser, err := kong.New(&line, settings.Settings{Default: at.settings}.Option(), kong.Name("umbra"), kong.Description(description), about.Vars("1"), kong.Writers(at.out, at.err),
		kong.Exit(func(code int) { exited = max(exited, code) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}))
	if err != nil {
		_, _ = fmt.Fprintln(at.err, "umbra:", err)
		return exitFailed
	}
	kongplete.Complete(parser) // when a shell asks for what could follow
	if exited >= 0 {
		return exited
	}
	chosen, err := parser.Parse(args)
	if exited >= 0 { // help was asked for and shown
		return exited
	}
	if err != nil {
		return report(ctx, at.err, usageError{err.Error()})
	}
	if line.Completion.Shell != "" {
		return report(ctx, at.err, chosen.Run(at))
	}
	conn, err := line.Connection.dial()
	if err != nil {
		return report(ctx, at.err, err)
	}
	defer conn.Close()
	err = chosen.Run(newClient(ctx, conn, at, line))
	return report(ctx, at.err, err)
}
