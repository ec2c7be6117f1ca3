// Package chaos breaks Umbra on purpose, on real libvirt hosts with guests that really boot, and checks after every
// fault that nothing of what Umbra promises was broken.
//
// A run is one landscape, one protected server, and a number of cycles. In each cycle an operator does one thing (an
// act: waiting for points, Failover, Change Recovery Point, Commit, …, whatever the pair allows just then), a fault
// strikes at a moment of it, what was broken is mended, and every promise is checked. What is done to whom and when
// follows from the seed and the number of the cycle. The machine's timing does not: the same seed repeats the same
// faults at the same moments of the same acts, not the same instructions.
//
// Three things are kept apart: faults (faults_*.go, data with an injector each) know of no promise; promises
// (promise_*.go) know of no fault; acts (act_*.go) are the operator's.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Config says how long to go on, and with what.
type Config struct {
	Binaries string // folder of umbra-controlplane and umbra-hostd
	Dir      string // holds the lab and the stores; removed at the end
	CacheDir string // of the lab

	Seed    uint64
	First   int           // number of the first cycle; 0 means 1. What came before is left out.
	Cycles  int           // 0 means that only Minutes ends the run
	Minutes time.Duration // 0 means that only Cycles ends the run
	Script  []Cycle       // instead of drawn cycles

	Out  io.Writer // what happens, a line each
	Keep bool      // leave the files when a promise was broken
}

// Broken is a promise that was not kept.
type Broken struct {
	Cycle   Cycle
	Promise string
	Err     error
}

func (b *Broken) Error() string {
	return fmt.Sprintf("cycle %d (%s): %s: %v", b.Cycle.Number, b.Cycle, b.Promise, b.Err)
}

func (b *Broken) Unwrap() error { return b.Err }

// Run brings everything up, goes through the cycles, and takes everything down. It ends at the first broken promise,
// with a *Broken, since what follows would be its consequence. The tally counts what was done up to then.
func Run(ctx context.Context, cfg Config) (tally *Tally, err error) {
	tally = newTally()
	w, err := newWorld(ctx, cfg)
	if err != nil {
		return tally, err
	}
	defer func() {
		var broken *Broken
		if errors.As(err, &broken) {
			w.explain()
		}
		err = errors.Join(err, w.down(context.WithoutCancel(ctx), cfg.Keep && err != nil))
	}()
	w.tally = tally
	end := make(<-chan time.Time)
	if cfg.Minutes > 0 {
		timer := time.NewTimer(cfg.Minutes)
		defer timer.Stop()
		end = timer.C
	}
	plan := newPlan(cfg)
	for {
		cycle, more := plan.next()
		if !more {
			return tally, nil
		}
		select {
		case <-end:
			return tally, nil
		case <-ctx.Done():
			return tally, context.Cause(ctx)
		default:
		}
		if err := w.cycle(ctx, cycle); err != nil {
			return tally, err
		}
	}
}
