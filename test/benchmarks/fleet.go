package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	fleetServers = 50
	fleetQuick   = 10
	fleetBytes   = gib // of each disk
	fleetNoise   = 8 * mib
	// fleetInterval is the product's default.
	fleetInterval = 15 * time.Second
	// fleetBeat is how often each server writes, and fleetWrite how much, which is 1 MiB a second.
	fleetBeat  = 5 * time.Second
	fleetWrite = 5 * mib
	// fleetWriters is how many servers write at once.
	fleetWriters = 5
)

// fleet is many servers of the main host, all of them protected.
type fleet struct {
	*site
	servers []string
	written atomic.Int64 // bytes, of all servers together
}

// fleetCost is row 15: what hostd takes for each of fifty servers, on either host, while they are idle and while they write.
func fleetCost(ctx context.Context, b *bench) error {
	return b.onSite(ctx, func(ctx context.Context, s *site) error {
		count := fleetServers
		if b.quick {
			count = fleetQuick
		}
		f := &fleet{site: s}
		for i := range count {
			f.servers = append(f.servers, fmt.Sprintf("fleet%02d", i))
		}
		if err := f.start(ctx); err != nil {
			return err
		}
		if err := f.cost(ctx, false); err != nil {
			return err
		}
		return f.whileWriting(ctx, func(ctx context.Context) error { return f.cost(ctx, true) })
	}, "--log-level=INFO")
}

// start starts all servers, alike to the byte, and protects them, until each has a point.
func (f *fleet) start(ctx context.Context) error {
	first := disk(f.Main, f.servers[0])
	if err := makeImage(ctx, first, content{size: fleetBytes, noise: []part{{0, fleetNoise}}}); err != nil {
		return err
	}
	for _, server := range f.servers[1:] {
		if _, err := command(ctx, "cp", "--sparse=always", first, disk(f.Main, server)); err != nil {
			return err
		}
	}
	for _, server := range f.servers {
		if err := f.boot(ctx, server); err != nil {
			return err
		}
	}
	for _, server := range f.servers {
		if err := f.waitListed(ctx, server); err != nil {
			return err
		}
		if err := f.protectBy(ctx, server, nil); err != nil {
			return err
		}
	}
	for _, server := range f.servers {
		if err := f.waitPoints(ctx, server, 1); err != nil {
			return err
		}
	}
	return nil
}

// cost measures both daemons over some intervals, one after the other, and holds what a server takes of them against the promise.
func (f *fleet) cost(ctx context.Context, writing bool) error {
	if err := pause(ctx, fleetInterval); err != nil { // what came before is over, and cycles are spread
		return err
	}
	before, _, err := cycles(ctx, f.Main)
	if err != nil {
		return err
	}
	memory, processor := samples{}, samples{}
	began, written := time.Now(), f.written.Load()
	for i := range f.bench.times {
		if err := f.interval(ctx, memory, processor); err != nil {
			return err
		}
		f.bench.note("%d/%d %.3g MiB and %.3g %% main, %.3g MiB and %.3g %% shadow", i+1, f.bench.times,
			memory[f.Main.Name][i], processor[f.Main.Name][i], memory[f.Shadow.Name][i], processor[f.Shadow.Name][i])
	}
	state := "idle"
	if writing {
		state = atRate(float64(f.written.Load()-written) / float64(len(f.servers)) / time.Since(began).Seconds())
	}
	after, _, err := cycles(ctx, f.Main)
	if err != nil {
		return err
	}
	points, err := f.Points(ctx, f.servers[0])
	if err != nil {
		return err
	}
	for _, host := range []string{f.Main.Name, f.Shadow.Name} {
		about := fmt.Sprintf("for each of %d servers, %s, on the %s host", len(f.servers), state, host)
		f.bench.promise("hostd's memory "+about, "MiB", memory[host], target{10, 5, atMost})
		f.bench.promise("hostd's processor time "+about, "% of a core", processor[host], target{1, 0.5, atMost})
		f.bench.remark(fmt.Sprintf("%g of %d points that were due were made in that time; the newest of one server stored %s.",
			after-before, f.bench.times*len(f.servers), mebibytes(points[0])))
	}
	return nil
}

// atRate names the rate at which each server wrote: the one that was reached, for a slow disk takes less than was meant.
func atRate(bytesPerSecond float64) string {
	return fmt.Sprintf("at %.2g MB/s each", bytesPerSecond/1e6)
}

func mebibytes(p *umbrav1.RecoveryPoint) string {
	return number(float64(p.GetChangedBytes())/float64(mib)) + " MiB"
}

// interval takes one figure of each kind of each daemon.
func (f *fleet) interval(ctx context.Context, memory, processor samples) error {
	pids := map[string]int{f.Main.Name: f.Main.Hostd.PID(), f.Shadow.Name: f.Shadow.Hostd.PID()}
	began, used := time.Now(), map[string]float64{}
	for host, pid := range pids {
		seconds, err := processorOf(pid)
		if err != nil {
			return err
		}
		used[host] = seconds
	}
	if err := pause(ctx, fleetInterval); err != nil {
		return err
	}
	share := float64(len(f.servers))
	for host, pid := range pids {
		seconds, err := processorOf(pid)
		if err != nil {
			return err
		}
		bytes, err := memoryOf(pid)
		if err != nil {
			return err
		}
		processor[host] = append(processor[host], 100*(seconds-used[host])/time.Since(began).Seconds()/share)
		memory[host] = append(memory[host], bytes/float64(mib)/share)
	}
	return nil
}

// whileWriting does work while each server writes.
func (f *fleet) whileWriting(ctx context.Context, work func(context.Context) error) error {
	writing, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.write(writing) }()
	err := work(ctx)
	stop()
	if failed := <-ended; err == nil {
		err = failed
	}
	return err
}

// write lets each server write until ctx ends, some of them at once: one after the other, they would not reach their rate.
func (f *fleet) write(ctx context.Context) error {
	var writers errgroup.Group
	for some := range slices.Chunk(f.servers, (len(f.servers)+fleetWriters-1)/fleetWriters) {
		writers.Go(func() error { return f.writeTo(ctx, some) })
	}
	return writers.Wait()
}

// writeTo lets servers write one after the other, other bytes to the next place each time, until ctx ends.
func (f *fleet) writeTo(ctx context.Context, servers []string) error {
	for round := int64(0); ; round++ {
		began := time.Now()
		var writes []string
		for _, server := range servers {
			writes = append(writes, diskWrite(server, 1+round%255, round*fleetWrite%(fleetBytes-fleetWrite), fleetWrite))
		}
		err := f.writeDisks(ctx, writes)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		f.written.Add(int64(len(servers)) * fleetWrite)
		if pause(ctx, time.Until(began.Add(fleetBeat))) != nil {
			return nil
		}
	}
}
