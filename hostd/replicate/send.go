package replicate

import (
	"context"
	"encoding/binary"
	"slices"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// send does what a chunk is for, when its turn has come.
func (c *copier) send(ctx context.Context, ch *chunk) error {
	switch ch.kind {
	case chunkAsk:
		return c.sendAsk(ch)
	case chunkMark:
		for disk, e := range c.exports[:ch.disk] {
			c.covered[disk] = e.clusters()
		}
		c.covered[ch.disk] = ch.to
		return c.sendCoverage()
	case chunkZero:
		return c.sendZero(ctx, ch)
	case chunkRead:
		return c.sendRead(ctx, ch)
	}
	return nil
}

func (c *copier) sendAsk(ch *chunk) error {
	c.link.sums.expect(window{uint32(ch.disk), ch.span})
	return c.link.control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_ChecksumsRequest{
		ChecksumsRequest: &umbrav1.ChecksumsRequest{Disk: uint32(ch.disk), FirstCluster: ch.from, Clusters: ch.clusters()},
	}})
}

func (c *copier) coverage() *umbrav1.Coverage {
	return &umbrav1.Coverage{Checkpoint: c.checkpoint, Clusters: slices.Clone(c.covered)}
}

func (c *copier) sendCoverage() error {
	if c.link.confirmed().GetCheckpoint() == c.checkpoint {
		c.onConfirmed()
	}
	return c.link.control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_CoverageReached{
		CoverageReached: &umbrav1.CoverageReached{Coverage: c.coverage()},
	}})
}

// held gets the checksums of what the shadow holds of the chunk, or nil when it is not to be compared.
func (c *copier) held(ctx context.Context, ch *chunk) ([]transport.Sum, error) {
	if !ch.compare {
		return nil, nil
	}
	raw := make([]byte, ch.clusters()*sumBytes)
	if err := c.link.sums.takeSums(ctx, ch.clusters(), raw); err != nil {
		return nil, err
	}
	sums := make([]transport.Sum,
		ch.clusters())
	for i := range sums {
		sums[i] = transport.Sum{Hi: binary.BigEndian.Uint64(raw[i*sumBytes:]), Lo: binary.BigEndian.Uint64(raw[i*sumBytes+8:])}
	}
	return sums, nil
}

func (c *copier) sendZero(ctx context.Context, ch *chunk) error {
	held, err := c.held(ctx, ch)
	if err != nil {
		return err
	}
	if held == nil {
		if err := c.zeros(ch.disk, ch.span); err != nil {
			return err
		}
	}
	for i := 0; i < len(held); {
		from := i
		for i < len(held) && held[i] != zeroSum {
			i++
		}
		if from < i {
			c.changed += int64(i-from) * clusterBytes
			if err := c.zeros(ch.disk, span{ch.from + uint64(from), ch.from + uint64(i)}); err != nil {
				return err
			}
		}
		for i < len(held) && held[i] == zeroSum {
			i++
		}
	}
	c.progress.addDone(int64(ch.clusters()) * clusterBytes)
	return nil
}

func (c *copier) zeros(disk int, s span) error {
	if err := c.link.stream.SendZeros(uint32(disk), s.from, s.clusters()); err != nil {
		return &streamError{err}
	}
	return nil
}

// The ways in which a cluster that was read is sent.
const (
	asNothing = iota // the shadow holds it
	asZeros
	asData
)

func (c *copier) sendRead(ctx context.Context, ch *chunk) error {
	select {
	case <-ch.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if ch.err != nil {
		return &sourceError{c.exports[ch.disk].target, ch.err}
	}
	held, err := c.held(ctx, ch)
	if err != nil {
		return err
	}
	way := func(i int) int {
		switch {
		case held != nil && held[i] == ch.sums[i]:
			return asNothing
		case ch.sums[i] == zeroSum:
			return asZeros
		}
		return asData
	}
	n := int(ch.clusters())
	for i := 0; i < n; {
		from, w := i, way(i)
		for i < n && way(i) == w {
			i++
		}
		if err := c.sendRun(ctx, ch, from, i, w); err != nil {
			return err
		}
	}
	if ch.buffer != nil {
		ch.buffer.Free()
	}
	c.progress.addDone(int64(n) * clusterBytes)
	return nil
}

// sendRun sends clusters from..to of a chunk, which are sent alike.
func (c *copier) sendRun(ctx context.Context, ch *chunk, from, to, way int) error {
	bytes := (to - from) * clusterBytes
	first := ch.from + uint64(from)
	switch way {
	case asNothing:
		return nil
	case asZeros:
		c.changed += int64(bytes)
		return c.zeros(ch.disk, span{first, ch.from + uint64(to)})
	}
	if err := c.throttle(ctx, bytes); err != nil {
		return err
	}
	buffer := ch.buffer
	if from == 0 && to == int(ch.clusters()) {
		ch.buffer = nil // all of it goes
	} else {
		buffer = c.link.stream.NewBuffer(to - from)
		copy(buffer.Data(), ch.data[from*clusterBytes:to*clusterBytes])
	}
	if err := c.link.stream.SendClusters(uint32(ch.disk), first, ch.sums[from:to], buffer); err != nil {
		return &streamError{err}
	}
	c.changed += int64(bytes)
	c.progress.sent.Add(int64(bytes))
	c.traffic.sent.Add(float64(bytes))
	return nil
}

// throttle waits until so many bytes may leave. It waits for one cluster at a time, so that a low limit still shows life.
func (c *copier) throttle(ctx context.Context, bytes int) error {
	for ; bytes > 0; bytes -= clusterBytes {
		if err := c.limiter.WaitN(ctx, clusterBytes); err != nil {
			return err
		}
		c.progress.moved.Add(1)
	}
	return nil
}
