package replicate

import (
	"context"
	"fmt"
	"sync"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	// sumBytes is the size of a checksum.
	sumBytes = 16
	// sumWindowClusters is how many checksums are asked for at once: 64 KiB of them, for 256 MiB of disk. No more than the window in
	// use and the next two are asked for and not used yet.
	sumWindowClusters = 4096
)

// window is a range of checksums that was asked for.
type window struct {
	disk uint32
	span
}

// sumQueue holds the checksums of the shadow's state that were asked for, in the order in which they were asked for, which is also the order in
// which they are used. One goroutine asks and takes, another delivers.
type sumQueue struct {
	mu    sync.Mutex
	asked []window // what has not arrived yet
	bytes []byte   // what has arrived and was not taken
	news  chan struct{}
}

// expect notes that a request is being sent.
func (q *sumQueue) expect(w window) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.asked = append(q.asked, w)
}

// deliver takes a part of an answer.
func (q *sumQueue) deliver(part *umbrav1.ChecksumsPart) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := uint64(len(part.GetChecksums())) / sumBytes
	if n == 0 || uint64(len(part.GetChecksums()))%sumBytes != 0 || len(q.asked) == 0 {
		return fmt.Errorf("%w: %d bytes of checksums, %d requests open", errShadowProtocol, len(part.GetChecksums()), len(q.asked))
	}
	w := &q.asked[0]
	if part.GetDisk() != w.disk || part.GetFirstCluster() != w.from || n > w.clusters() {
		return fmt.Errorf("%w: checksums of disk %d from %d, expected disk %d from %d", errShadowProtocol,
			part.GetDisk(), part.GetFirstCluster(), w.disk, w.from)
	}
	q.bytes = append(q.bytes, part.GetChecksums()...)
	w.from += n
	if w.from == w.to {
		q.asked = q.asked[1:]
	}
	signal(q.news)
	return nil
}

// takeSums waits for the next n checksums and fills out, which has room for them.
func (q *sumQueue) takeSums(ctx context.Context, n uint64, out []byte) error {
	want := int(n * sumBytes)
	err := q.until(ctx, func() bool { return len(q.bytes) >= want })
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	copy(out, q.bytes[:want])
	q.bytes = q.bytes[want:]
	return nil
}

// drain waits for all that was asked for and forgets it.
func (q *sumQueue) drain(ctx context.Context) error {
	if err := q.until(ctx, func() bool { return len(q.asked) == 0 }); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes = nil
	return nil
}

func (q *sumQueue) until(ctx context.Context, done func() bool) error {
	for {
		q.mu.Lock()
		ok := done()
		q.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-q.news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
