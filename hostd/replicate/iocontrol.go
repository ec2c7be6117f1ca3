package replicate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
)

const (
	// readsInFlight is how many chunks of a job are read at once, if each read has a weight of 1.
	readsInFlight = 8
	// incrementWeight leaves 2 reads in flight: an increment is made beside the server's writes, which wait behind them.
	incrementWeight = 4
	// longIncrementWeight leaves 4, after longIncrement: the age of the newest point depends on an increment that has much to read.
	longIncrementWeight = 2
	longIncrement       = time.Second
	// turnTime is for how long a copy that spares the server reads before it rests.
	turnTime = 200 * time.Millisecond
	// restMin is how long it rests at least while the server does I/O, to learn what that takes undisturbed.
	restMin = 10 * time.Millisecond
	// restAnyway is in how many turns it rests once although the server seems to do nothing.
	restAnyway = 8
	// requestsMin is how many requests in a time of reading or of rest mean that the server is at work.
	requestsMin = 2
)

// ioControl spares the server while whole disks are copied, which takes hours: the copy reads only so much of the time that the
// server loses at most the share costMax of its own I/O. The server's counters tell what its requests take while the copy
// reads, and what they take while it rests. A server that does nothing is copied at full speed. A resync of DRBD or of Linux's
// RAID makes way in the same manner (https://linbit.com/drbd-user-guide/, "Variable sync rate configuration"; md(4), "Resync speed").
type ioControl struct {
	clock    clock.Clock
	log      *slog.Logger
	costMax  float64
	counters func(context.Context) (hypervisor.IOCounters, error)
	reads    *semaphore.Weighted // of readsInFlight
	rest     *semaphore.Weighted // of readsInFlight, all taken while the copy rests, which comes before all who wait for reads
	weight   atomic.Int64        // of a read: 1, or that of an increment, or all while the server is spared, so that there is one at a time

	turns            int
	reading, resting load
	told             sync.Once // that the server is spared, or why it is not
}

func (w *worker) newIOControl(server string) *ioControl {
	c := &ioControl{
		clock: w.cfg.Clock, log: w.log, costMax: w.cfg.CopyCostMax,
		reads: semaphore.NewWeighted(readsInFlight), rest: semaphore.NewWeighted(readsInFlight),
		counters: func(ctx context.Context) (hypervisor.IOCounters, error) {
			ctx, stop := context.WithTimeout(ctx, callMax)
			defer stop()
			return w.cfg.Source.IOCounters(ctx, server)
		},
	}
	c.weight.Store(incrementWeight)
	return c
}

// read waits for the turn of a read and makes it. An error is the context's.
func (c *ioControl) read(ctx context.Context, do func()) error {
	weight := c.weight.Load()
	if err := c.reads.Acquire(ctx, weight); err != nil {
		return err
	}
	defer c.reads.Release(weight)
	if err := c.rest.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.rest.Release(1)
	do()
	return nil
}

// chunkClusters is how much a read is to take.
func (c *ioControl) chunkClusters() uint64 {
	if c.weight.Load() == 1 {
		return chunkClustersMax
	}
	return chunkClustersSparing
}

// runIncrement lets an increment have more reads in flight once it takes long; it ends with ctx.
func (c *ioControl) runIncrement(ctx context.Context) {
	if c.clock.Wait(ctx, longIncrement) == nil {
		c.weight.Store(longIncrementWeight)
	}
}

// runCopy lets a copy of whole disks read and rest in turn until ctx ends.
func (c *ioControl) runCopy(ctx context.Context) {
	c.weight.Store(1)
	if c.costMax >= 1 {
		return
	}
	for ctx.Err() == nil {
		if err := c.turn(ctx); err != nil && ctx.Err() == nil {
			c.weight.Store(1)
			c.told.Do(func() {
				c.log.Info("what the server's I/O takes cannot be told, its disks are copied at full speed", "error", err)
			})
			_ = c.clock.Wait(ctx, jobBeat) // the loop ends with ctx
		}
	}
}

// turn is one time of reading and, if the server does anything, one of rest. A server that seems to do nothing may be one whose
// requests do not come through for all the reading, so there is a rest now and then even so.
func (c *ioControl) turn(ctx context.Context) error {
	read, err := c.during(ctx, turnTime)
	if err != nil {
		return err
	}
	spared := c.weight.Load() > 1
	busy := spared || read.Requests >= requestsMin
	c.turns++
	if !busy && c.turns%restAnyway != 1 {
		return nil
	}
	c.reading.add(read)
	share := 1.0
	if busy {
		share = copyShare(c.reading.mean(), c.resting.mean(), c.costMax)
	}
	if err := c.rest.Acquire(ctx, readsInFlight); err != nil {
		return err
	}
	defer c.rest.Release(readsInFlight)
	rested, err := c.during(ctx, max(restMin, time.Duration(float64(turnTime)*(1/share-1))))
	if err != nil {
		return err
	}
	c.resting.add(rested)
	if read.Requests < requestsMin && rested.Requests < requestsMin {
		c.weight.Store(1)
		c.reading, c.resting = load{}, load{}
		return nil
	}
	c.weight.Store(readsInFlight)
	c.told.Do(func() {
		c.log.Info("the server is at work, its disks are copied in part of the time so as not to slow it down", "cost_max", c.costMax)
	})
	return nil
}

// during is what the server has done in the time to come.
func (c *ioControl) during(ctx context.Context, d time.Duration) (hypervisor.IOCounters, error) {
	before, err := c.counters(ctx)
	if err != nil {
		return hypervisor.IOCounters{}, err
	}
	if err := c.clock.Wait(ctx, d); err != nil {
		return hypervisor.IOCounters{}, err
	}
	after, err := c.counters(ctx)
	return hypervisor.IOCounters{Requests: after.Requests - before.Requests, Took: after.Took - before.Took}, err
}

// load is what a server's requests have taken of late: of each time that is added, the ones before count three quarters.
type load struct{ requests, seconds float64 }

func (l *load) add(io hypervisor.IOCounters) {
	l.requests = l.requests*0.75 + float64(io.Requests)
	l.seconds = l.seconds*0.75 + io.Took.Seconds()
}

// mean is what a request takes, in seconds; 0 when there was none.
func (l *load) mean() float64 {
	if l.requests <= 0 {
		return 0
	}
	return l.seconds / l.requests
}

// copyShare is the share of the time that a copy may read in. reading and resting are what a request of the server takes, in seconds,
// while the copy reads and while it rests; a server whose requests wait for each other does resting/reading of its work
// while the copy reads. Before it is known what they take undisturbed (0), they count as if none came through at all.
func copyShare(reading, resting, costMax float64) float64 {
	if reading <= resting {
		return 1
	}
	return min(1, costMax/(1-resting/reading))
}
