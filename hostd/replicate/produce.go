package replicate

import (
	"context"

	"github.com/umbra-dr/umbra/pkg/nbd"
)

const (
	// windowClusters is how much of a disk is planned at once: 256 MiB, as much as checksums are asked for.
	windowClusters = sumWindowClusters
	// planClustersMin is from what length on a changed run is asked for zeros; shorter ones are read, which costs less than the question.
	planClustersMin = 64

	contextAllocation = "base:allocation"

	// firstReadBytes is more than any read that follows takes. QEMU allocates a buffer for each read, and glibc gives a freed one back to the
	// kernel, which maps and clears the next one page by page, unless a larger one was freed before (mallopt(3), M_MMAP_THRESHOLD):
	// without this read, a sixth of two processors' time of a full copy.
	firstReadBytes = 8 << 20
)

// readMuch reads firstReadBytes of a disk at once, if there is so much to copy, and drops them.
func (c *copier) readMuch(ctx context.Context) error {
	for _, e := range c.exports {
		if (e.clusters()-e.start)*clusterBytes < 2*firstReadBytes {
			continue
		}
		if err := e.client.ReadAt(ctx, make([]byte, firstReadBytes), e.start*clusterBytes); err != nil {
			return &sourceError{e.target, err}
		}
		return nil
	}
	return nil
}

// dirtySets asks every export that has a bitmap for what has changed.
func (c *copier) dirtySets(ctx context.Context) ([]*dirtySet, error) {
	sets := make([]*dirtySet, len(c.exports))
	for i, e := range c.exports {
		if e.start == 0 {
			continue
		}
		set := makeDirtySet(e.clusters())
		err := e.client.BlockStatus(ctx, e.bitmap, 0, e.sizeBytes, func(x nbd.Extent) error {
			if x.Flags&nbd.StateDirty != 0 {
				set.addBytes(x.Offset, x.Length)
			}
			return nil
		})
		if err != nil {
			return nil, &sourceError{e.target, err}
		}
		sets[i] = set
	}
	return sets, nil
}

// produceChanges plans phase 1: what has changed since the coverage's checkpoint, within the coverage. Nothing of it counts before all of it is
// done, so the job can only end early by failing.
func (c *copier) produceChanges(ctx context.Context, sets []*dirtySet, emit emitter) error {
	for disk, e := range c.exports {
		set := sets[disk]
		if set == nil {
			continue
		}
		for from := uint64(0); ; {
			run, ok := set.nextRun(from, e.start)
			if !ok {
				break
			}
			for _, s := range pieces(run, windowClusters) {
				if short := c.stop(); short != nil {
					return short
				}
				if err := c.produceSpan(ctx, disk, s, false, emit); err != nil {
					return err
				}
			}
			from = run.to
		}
	}
	return nil
}

// produceRest plans phase 2: everything that is not covered, in order.
func (c *copier) produceRest(ctx context.Context, emit emitter) error {
	if err := c.readMuch(ctx); err != nil {
		return err
	}
	m := &marks{at: c.clock.Now()}
	for disk, e := range c.exports {
		counted := c.counted(disk, m, emit)
		windows := pieces(span{e.start, e.clusters()}, windowClusters)
		for i, w := range windows {
			if err := c.produceAsks(disk, windows, i, emit); err != nil {
				return err
			}
			if err := c.produceSpan(ctx, disk, w, e.compare, counted); err != nil {
				return err
			}
			if c.stopped != nil {
				return nil
			}
		}
	}
	return nil
}

// produceAsks asks for the checksums one window ahead, so that they are there when they are needed.
func (c *copier) produceAsks(disk int, windows []span, i int, emit emitter) error {
	if !c.exports[disk].compare {
		return nil
	}
	if i == 0 {
		if err := emit(&chunk{disk: disk, span: windows[0], kind: chunkAsk}); err != nil {
			return err
		}
	}
	if i+1 == len(windows) {
		return nil
	}
	return emit(&chunk{disk: disk, span: windows[i+1], kind: chunkAsk})
}

// counted is emit with marks between, and with an end when the job has to stop. A stop comes after a chunk, so every job gets
// further than the one before it.
func (c *copier) counted(disk int, m *marks, emit emitter) emitter {
	return func(ch *chunk) error {
		if c.stopped != nil {
			return nil
		}
		if err := emit(ch); err != nil {
			return err
		}
		c.stopped = c.stop()
		if !m.due(c.clock.Now(), ch.clusters()) && c.stopped == nil {
			return nil
		}
		return emit(&chunk{disk: disk, span: ch.span, kind: chunkMark})
	}
}

// produceSpan plans a span of a disk.
func (c *copier) produceSpan(ctx context.Context, disk int, s span, compare bool, emit emitter) error {
	items, err := c.plan(ctx, c.exports[disk], s)
	if err != nil {
		return err
	}
	for _, it := range items {
		if it.zero {
			if err := emit(&chunk{disk: disk, span: it.span, kind: chunkZero, compare: compare}); err != nil {
				return err
			}
			continue
		}
		for from := it.from; from < it.to; {
			p := span{from, min(it.to, from+c.io.chunkClusters())}
			if err := emit(&chunk{disk: disk, span: p, kind: chunkRead, compare: compare}); err != nil {
				return err
			}
			from = p.to
		}
	}
	return nil
}

func (c *copier) plan(ctx context.Context, e *export, s span) ([]item, error) {
	if s.clusters() < planClustersMin || !e.client.HasContext(contextAllocation) {
		return []item{{span: s}}, nil
	}
	var zeros []byteRange
	off := s.from * clusterBytes
	length := min(s.to*clusterBytes, e.sizeBytes) - off
	err := e.client.BlockStatus(ctx, contextAllocation, off, length, func(x nbd.Extent) error {
		if x.Flags&nbd.StateZero != 0 {
			zeros = append(zeros, byteRange{x.Offset, x.Length})
		}
		return nil
	})
	if err != nil {
		return nil, &sourceError{e.target, err}
	}
	return plan(s, zeros, int64(e.sizeBytes)), nil
}
