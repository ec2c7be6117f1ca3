package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/transport"
)

const (
	// welcomeMax is how long the shadow may take to answer hello. It may have to open its store after a crash.
	welcomeMax = 2 * time.Minute
	// storedMax is how long the shadow may take to make a point or a coverage durable.
	storedMax = 10 * time.Minute
	// reasonMax is how long the reason for the end of a stream may come after the end itself.
	reasonMax = 5 * time.Second
)

// errShadowProtocol means that the shadow host answered what was not asked.
var errShadowProtocol = errors.New("the shadow host does not keep to the protocol")

// link is an open stream to the shadow host, after hello and welcome. Sends are for one goroutine; a goroutine of the link's own receives.
type link struct {
	stream *transport.MainStream
	fail   context.CancelCauseFunc
	sums   sumQueue

	mu       sync.Mutex
	welcome  *umbrav1.ReplicationWelcome
	coverage *umbrav1.Coverage    // last confirmed
	point    *umbrav1.PointStored // last confirmed
	news     chan struct{}        // of size 1: one of the above has changed

	received chan struct{} // closed when the receiver has ended
	cause    error         // why it ended; to be read after that
}

// openLink says hello on the stream and waits for the answer. fail ends the context that the stream was opened with, and everything else that
// uses the link; it is called with the reason when the stream ends by itself. The caller owes a close.
func openLink(ctx context.Context, st *transport.MainStream, fail context.CancelCauseFunc, hello *umbrav1.ReplicationHello) (*link, error) {
	l := &link{stream: st, fail: fail, news: make(chan struct{}, 1), received: make(chan struct{})}
	l.sums.news = make(chan struct{}, 1)
	go l.receive()
	err := l.control(&umbrav1.MainMessage{Message: &umbrav1.MainMessage_Hello{Hello: hello}})
	if err == nil {
		err = l.await(ctx, welcomeMax, "the answer to hello", func() bool { return l.welcome != nil })
	}
	if err == nil {
		err = checkCoverage(l.welcome.GetCoverage(), hello.GetDisks())
	}
	if err != nil {
		err = l.reason(err)
		l.close()
		return nil, err
	}
	return l, nil
}

func checkCoverage(c *umbrav1.Coverage, disks []*umbrav1.ReplicatedDisk) error {
	if c.GetCheckpoint() == "" {
		return nil
	}
	if len(c.GetClusters()) != len(disks) {
		return fmt.Errorf("%w: coverage of %d disks, asked for %d", errShadowProtocol, len(c.GetClusters()), len(disks))
	}
	return nil
}

// close ends the stream and waits for the receiver.
func (l *link) close() {
	l.fail(context.Canceled)
	<-l.received
}

func (l *link) control(m *umbrav1.MainMessage) error {
	if err := l.stream.SendControl(m); err != nil {
		return &streamError{err}
	}
	return nil
}

func (l *link) receive() {
	defer close(l.received)
	for l.cause == nil {
		m, err := l.stream.Recv()
		if err != nil {
			l.cause = &streamError{err}
			break
		}
		l.cause = l.take(m)
	}
	l.fail(l.cause)
}

// reason returns why a use of the link failed with err. A send on a stream that the other side has ended says only that it has ended; the
// receiver gets to know why.
func (l *link) reason(err error) error {
	var broken *streamError
	if !errors.As(err, &broken) || !errors.Is(err, io.EOF) {
		return err
	}
	waiting, stop := context.WithTimeout(context.Background(), reasonMax)
	defer stop()
	select {
	case <-l.received:
		return l.cause
	case <-waiting.Done():
		return err
	}
}

func (l *link) take(m *umbrav1.ShadowMessage) error {
	switch m := m.GetMessage().(type) {
	case *umbrav1.ShadowMessage_ChecksumsPart:
		return l.sums.deliver(m.ChecksumsPart)
	case *umbrav1.ShadowMessage_Refused:
		return &refusedError{m.Refused.GetFailure()}
	case *umbrav1.ShadowMessage_Welcome:
		l.note(func() { l.welcome = m.Welcome })
	case *umbrav1.ShadowMessage_CoverageStored:
		l.note(func() { l.coverage = m.CoverageStored.GetCoverage() })
	case *umbrav1.ShadowMessage_PointStored:
		l.note(func() { l.point = m.PointStored })
	default: // nothing is passed over where the data of a point may be
		return fmt.Errorf("%w: a message of a kind that the main host does not know: upgrade the main host", errShadowProtocol)
	}
	return nil
}

func (l *link) note(f func()) {
	l.mu.Lock()
	f()
	l.mu.Unlock()
	signal(l.news)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits until what the shadow has confirmed satisfies done, at most for so long.
func (l *link) await(ctx context.Context, most time.Duration, what string, done func() bool) error {
	waiting, stop := context.WithTimeoutCause(ctx, most, &streamError{
		fmt.Errorf("%s did not come within %v: %w", what, most, context.DeadlineExceeded),
	})
	defer stop()
	for {
		l.mu.Lock()
		ok := done()
		l.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-l.news:
		case <-waiting.Done():
			return context.Cause(waiting)
		}
	}
}

// awaitCoverage waits until exactly this coverage is durable.
func (l *link) awaitCoverage(ctx context.Context, want *umbrav1.Coverage) error {
	return l.await(ctx, storedMax, "the confirmation of the coverage", func() bool {
		return l.coverage.GetCheckpoint() == want.GetCheckpoint() && slices.Equal(l.coverage.GetClusters(), want.GetClusters())
	})
}

// awaitPoint waits until the point of the checkpoint is durable, and returns its id.
func (l *link) awaitPoint(ctx context.Context, checkpoint string) (string, error) {
	err := l.await(ctx, storedMax, "the confirmation of the recovery point", func() bool {
		return l.point.GetCheckpoint() == checkpoint
	})
	if err != nil {
		return "", err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.point.GetRecoveryPoint(), nil
}

// confirmed returns the coverage that the shadow confirmed last, nil before the first.
func (l *link) confirmed() *umbrav1.Coverage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.coverage
}
