package replicate

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/nbd"
)

const (
	// chunksMax bounds the chunks between the first reader and the stream, so the memory of a job: 16 × 1 MiB.
	chunksMax = 16
	// coverageBytes and coverageTime are how often the shadow is told what is covered, whichever comes first.
	coverageBytes = 1 << 30
	coverageTime  = 10 * time.Second
)

// export is one disk of a backup job, connected.
type export struct {
	client    *nbd.Client
	target    string
	bitmap    string // the meta context of what has changed; "" when that cannot be told
	sizeBytes uint64
	start     uint64 // clusters that the shadow covers as of the job's Since
	compare   bool   // from start on, send only what differs from what the shadow holds
}

func (e *export) clusters() uint64 { return clustersOf(int64(e.sizeBytes)) }

// copier carries what a job's view holds to the shadow: chunks are planned by one goroutine, read by some, and sent in the order of the
// plan by one, so that what is covered is always known.
type copier struct {
	link       *link
	clock      clock.Clock
	limiter    *rate.Limiter
	io         *ioControl
	progress   *progress
	traffic    traffic
	exports    []*export
	checkpoint string // of the job

	// changed counts bytes that are new to the shadow.
	changed int64
	// onConfirmed is called when the shadow has confirmed coverage of this job, now and then.
	onConfirmed func()
	// covered is what the shadow was told, by disk.
	covered []uint64
	// stop says at a boundary why the job has to end early, if it has to; stopped tells that it did, and why.
	stop    func() error
	stopped error
}

// rest is how many clusters are not covered: what has to be read however little has changed.
func (c *copier) rest() (clusters uint64) {
	for _, e := range c.exports {
		clusters += e.clusters() - e.start
	}
	return clusters
}

// emitter takes planned chunks, in order.
type emitter func(*chunk) error

// run executes a plan. A read error is a *sourceError, an error of the stream a *streamError; when ctx ends, its cause says more.
func (c *copier) run(ctx context.Context, produce func(context.Context, emitter) error) error {
	group, ctx := errgroup.WithContext(ctx)
	ordered := make(chan *chunk, chunksMax)
	reads := make(chan *chunk)
	group.Go(func() error {
		defer close(reads)
		defer close(ordered)
		return produce(ctx, func(ch *chunk) error { return c.emit(ctx, ch, ordered, reads) })
	})
	for range readsInFlight {
		group.Go(func() error {
			for ch := range reads {
				e := c.exports[ch.disk]
				if err := c.io.read(ctx, func() { ch.read(ctx, e.client, e.sizeBytes) }); err != nil {
					return err
				}
				if ch.err == nil {
					c.traffic.read.Add(float64(len(ch.data)))
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		for ch := range ordered {
			if err := c.send(ctx, ch); err != nil {
				return err
			}
		}
		return nil
	})
	return group.Wait()
}

// emit hands a chunk on. The buffer is taken here, in the order of sending: taken by readers, later chunks could hold all of them
// while the first has none.
func (c *copier) emit(ctx context.Context, ch *chunk, ordered, reads chan<- *chunk) error {
	if ch.kind == chunkRead {
		ch.ready = make(chan struct{})
		ch.buffer = c.link.stream.NewBuffer(max(int(ch.clusters()), chunkClustersSparing))
		ch.data = ch.buffer.Data()[:ch.clusters()*clusterBytes]
	}
	select {
	case ordered <- ch:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ch.kind != chunkRead {
		return nil
	}
	select {
	case reads <- ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// marks decides when the shadow is told what is covered.
type marks struct {
	clusters uint64
	at       time.Time
}

func (m *marks) due(now time.Time, clusters uint64) bool {
	m.clusters += clusters
	if m.clusters*clusterBytes < coverageBytes && now.Sub(m.at) < coverageTime {
		return false
	}
	m.clusters, m.at = 0, now
	return true
}
