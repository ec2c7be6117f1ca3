package replicate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// busyServer makes one request after the other, each of which takes longer while a copy reads.
type busyServer struct {
	undisturbed, disturbed time.Duration
	reads                  atomic.Int64 // in flight
	requests, took         atomic.Int64
	untold                 atomic.Bool // its counters
}

func (s *busyServer) work(ctx context.Context) {
	for ctx.Err() == nil {
		d := s.undisturbed
		if s.reads.Load() > 0 {
			d = s.disturbed
		}
		if clock.System.Wait(ctx, d) == nil {
			s.requests.Add(1)
			s.took.Add(int64(d))
		}
	}
}

func (s *busyServer) counters(context.Context) (hypervisor.IOCounters, error) {
	if s.untold.Load() {
		return hypervisor.IOCounters{}, errors.New("no counters")
	}
	return hypervisor.IOCounters{Requests: s.requests.Load(), Took: time.Duration(s.took.Load())}, nil
}

func (s *busyServer) control(costMax float64) *ioControl {
	c := &ioControl{
		clock: clock.System, log: slog.New(slog.DiscardHandler), costMax: costMax, counters: s.counters,
		reads: semaphore.NewWeighted(readsInFlight), rest: semaphore.NewWeighted(readsInFlight),
	}
	c.weight.Store(incrementWeight)
	return c
}

// read makes as many reads at once as c lets it, each of a millisecond, until ctx ends, and tells how many.
func (s *busyServer) read(ctx context.Context, c *ioControl) int64 {
	var all sync.WaitGroup
	var made atomic.Int64
	for range readsInFlight {
		all.Go(func() {
			for c.read(ctx, func() {
				s.reads.Add(1)
				_ = clock.System.Wait(ctx, time.Millisecond)
				s.reads.Add(-1)
				made.Add(1)
			}) == nil {
			}
		})
	}
	all.Wait()
	return made.Load()
}

// copied lets a copy read beside the server for a time and tells how many reads it made.
func (s *busyServer) copied(t *testing.T, d time.Duration, costMax float64) int64 {
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	c := s.control(costMax)
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { c.runCopy(ctx) })
	if s.undisturbed > 0 {
		all.Go(func() { s.work(ctx) })
	}
	return s.read(ctx, c)
}

func TestAnIncrementReadsMoreAtOnceOnlyOnceItTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		s := &busyServer{}
		c := s.control(1)
		var all sync.WaitGroup
		all.Go(func() { c.runIncrement(ctx) })
		all.Go(func() { s.read(ctx, c) })
		begun := time.Now()
		inFlight := func(at time.Duration, want int64) {
			t.Helper()
			time.Sleep(time.Until(begun.Add(at + time.Millisecond/2))) // between the begin of a read and its end
			synctest.Wait()
			if got := s.reads.Load(); got != want {
				t.Errorf("after %v %d reads are in flight, want %d", at, got, want)
			}
		}
		inFlight(longIncrement/2, 2)
		inFlight(2*longIncrement, 4)
		stop()
		all.Wait()
	})
}

func TestACopyCostsAServerAtMostItsShareOfIO(t *testing.T) {
	const long = time.Minute
	for name, c := range map[string]struct {
		server             *busyServer
		cost               float64
		requests, readsMin int64
	}{
		"nothing to spare":         {&busyServer{}, 0.1, 0, readsInFlight * 59_000},
		"reads do not disturb":     {&busyServer{undisturbed: time.Millisecond, disturbed: time.Millisecond}, 0.1, 60_000, 54_000},
		"reads disturb a little":   {&busyServer{undisturbed: time.Millisecond, disturbed: 1100 * time.Microsecond}, 0.1, 53_000, 50_000},
		"reads disturb":            {&busyServer{undisturbed: time.Millisecond, disturbed: 4 * time.Millisecond}, 0.1, 53_000, 6_000},
		"nothing comes through":    {&busyServer{undisturbed: time.Millisecond, disturbed: 100 * time.Millisecond}, 0.1, 50_000, 5_000}, // what has begun beside a read is late in the rest, too
		"it may cost half":         {&busyServer{undisturbed: time.Millisecond, disturbed: 4 * time.Millisecond}, 0.5, 29_000, 30_000},
		"it may cost all":          {&busyServer{undisturbed: time.Millisecond, disturbed: 4 * time.Millisecond}, 1, 14_000, readsInFlight * 59_000},
		"requests are slow, a few": {&busyServer{undisturbed: 20 * time.Millisecond, disturbed: 60 * time.Millisecond}, 0.1, 2_500, 6_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reads := c.server.copied(t, long, c.cost)
				if requests := c.server.requests.Load(); requests < c.requests || reads < c.readsMin {
					t.Errorf("in %v the server has made %d requests and the copy %d reads, want at least %d and %d", long, requests, reads, c.requests, c.readsMin)
				}
			})
		})
	}
}

func TestAServerWhoseIOCannotBeToldIsCopiedAtFullSpeedAndSparedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &busyServer{undisturbed: time.Millisecond, disturbed: 10 * time.Millisecond}
		s.untold.Store(true)
		time.AfterFunc(10*time.Second, func() { s.untold.Store(false) })
		reads := s.copied(t, 20*time.Second, 0.1)
		if spared := s.requests.Load(); reads < readsInFlight*9_000 || reads > readsInFlight*14_000 || spared < 9_000 {
			t.Errorf("the copy made %d reads, the server %d requests", reads, spared)
		}
	})
}
