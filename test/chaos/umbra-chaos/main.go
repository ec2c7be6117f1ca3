// Command umbra-chaos breaks Umbra on purpose on real libvirt hosts, for a number of cycles or minutes, and checks every
// promise after each fault. It ends with a table of what was done, or with the first broken promise and the command that
// repeats it.
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

	"github.com/umbra-dr/umbra/test/chaos"
)

type flags struct {
	Binaries string `help:"Folder of the commands." default:"build/bin" placeholder:"DIR"`
	Cycles   int    `help:"End after so many cycles; 0 for no such bound." default:"0"`
	Minutes  int    `help:"End after so many minutes; 0 for no such bound." default:"0"`
	Seed     uint64 `help:"What the faults and their moments follow from; 0 draws one." default:"0"`
	First    int    `help:"Number of the first cycle: leave out what came before." default:"1"`
	Keep     bool   `help:"Leave the files when a promise was broken."`
	List     bool   `help:"Only list the faults, as a table in Markdown."`
}

func main() {
	var f flags
	kong.Parse(&f, kong.Name("umbra-chaos"), kong.Description("Faults on real libvirt hosts, and the promises that hold after each."))
	if f.List {
		fmt.Print(chaos.FaultTable())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, f)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "umbra-chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, f flags) error {
	if f.Cycles == 0 && f.Minutes == 0 {
		return errors.New("give --cycles or --minutes")
	}
	if f.Seed == 0 {
		f.Seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	fmt.Printf("seed %d\n", f.Seed)
	tally, err := chaos.Run(ctx, chaos.Config{
		Binaries: f.Binaries, Dir: filepath.Join("/var/tmp", "umbra-chaos-"+strconv.Itoa(os.Getpid())), CacheDir: "/var/tmp/umbra-lab-cache",
		Seed: f.Seed, First: f.First, Cycles: f.Cycles, Minutes: time.Duration(f.Minutes) * time.Minute, Out: os.Stdout, Keep: f.Keep,
	})
	tally.Write(os.Stdout)
	var broken *chaos.Broken
	if errors.As(err, &broken) {
		fmt.Printf("\nTo repeat it:           make chaos SEED=%d CYCLES=%d\n", f.Seed, broken.Cycle.Number-f.First+1)
		fmt.Printf("That cycle alone, first: make chaos SEED=%d FIRST=%d CYCLES=1\n", f.Seed, broken.Cycle.Number)
	}
	return err
}
