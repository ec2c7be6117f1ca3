// Package simulation_test runs the whole of Umbra but QEMU through thousands of rounds of requests and faults: the real
// control plane on etcd, the real session protocol and replication stream, the real hostd packages, on a hypervisor and a network in
// memory. Everything a round does is drawn from a seed; the order in which goroutines run is not, so a seed that failed shows
// the failure again when it does not hang on that order.
package simulation_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/controlplane/embedded"
)

var (
	cyclesWanted = flag.Int("cycles", 160, "cycles to run in all, a whole number of worlds")
	minutesMax   = flag.Float64("minutes", 0, "end after so many minutes; 0: when the cycles are done")
	firstSeed    = flag.Uint64("seed", 1, "the first world's seed; each world has the next one")
	worldsAtOnce = flag.Int("worlds", 8, "worlds that run side by side")
	keepLogs     = flag.String("logs", "", "a folder for the logs of worlds that fail")
)

// cyclesPerWorld is how long a world lives: a seed that fails is shown again within seconds.
const cyclesPerWorld = 20

// progressEvery is after how many cycles a run says how far it is.
const progressEvery = 1000

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

func TestNoPromiseIsBrokenWhateverBreaks(t *testing.T) {
	seeds := (*cyclesWanted + cyclesPerWorld - 1) / cyclesPerWorld
	dir, err := memoryDir("umbra-etcd-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	etcd, stop, err := embedded.Start(t.Context(), dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	began := time.Now()
	var all counts
	var mu sync.Mutex
	var worlds sync.WaitGroup
	queue := make(chan uint64)
	for range *worldsAtOnce {
		worlds.Go(func() {
			for seed := range queue {
				lived, err := live(t.Context(), seed, etcd)
				mu.Lock()
				all.add(lived)
				if all.cycles/progressEvery > (all.cycles-lived.cycles)/progressEvery {
					t.Logf("%d cycles in %v", all.cycles, time.Since(began).Round(time.Second))
				}
				if err != nil {
					t.Errorf("seed %d: %v\nto see it again: make simulate SEED=%d CYCLES=%d", seed, err, seed, cyclesPerWorld)
				}
				mu.Unlock()
			}
		})
	}
	for i := range seeds {
		if *minutesMax > 0 && time.Since(began).Minutes() > *minutesMax {
			break
		}
		queue <- *firstSeed + uint64(i)
	}
	close(queue)
	worlds.Wait()
	t.Logf("%d cycles in %v (%.1f a second), %d pairs, %d points compared\n%s", all.cycles, time.Since(began).Round(time.Second),
		float64(all.cycles)/time.Since(began).Seconds(), all.pairs, all.points, all.text())
}

// live is the whole life of a world.
func live(ctx context.Context, seed uint64, etcd *clientv3.Client) (lived counts, err error) {
	w, err := newWorld(seed, etcd, newNetwork())
	if err != nil {
		return counts{}, err
	}
	defer func() {
		lived = w.counts
		if closeErr := w.close(); err == nil {
			err = closeErr
		}
		if err != nil && *keepLogs != "" {
			_ = os.WriteFile(fmt.Sprintf("%s/seed-%d.log", *keepLogs, seed), []byte(w.logged.String()), 0o600)
		}
	}()
	for number := range cyclesPerWorld {
		if err := w.cycle(ctx, number); err != nil {
			return w.counts, fmt.Errorf("cycle %d: %w", number, err)
		}
	}
	return w.counts, w.checkHistory()
}

// text is the counts for a person.
func (c *counts) text() string {
	var out strings.Builder
	for _, part := range []struct {
		title string
		m     map[string]int
	}{{"requests", c.requests}, {"faults", c.faults}, {"came to rest in", c.states}} {
		fmt.Fprintf(&out, "%s:\n", part.title)
		names := make([]string, 0, len(part.m))
		for name := range part.m {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&out, "  %6d  %s\n", part.m[name], name)
		}
	}
	return out.String()
}
