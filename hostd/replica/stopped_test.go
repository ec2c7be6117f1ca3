package replica_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
)

// failOnce fails at the failpoint when it is armed.
func failOnce(at recoverystore.Failpoint, armed *atomic.Bool) func(*replica.Config) {
	return func(c *replica.Config) {
		c.Store.Faults = func(p recoverystore.Failpoint) error {
			if p == at && armed.CompareAndSwap(true, false) {
				return errors.New("the disk failed")
			}
			return nil
		}
	}
}

// A failure that leaves in doubt what a store's index holds stops the store. That must not need a restart of hostd: not for
// replication,
func TestAStoreThatStoppedIsOpenedAnewForTheNextStream(t *testing.T) {
	for _, at := range []recoverystore.Failpoint{recoverystore.FailBeforeIndex, recoverystore.FailInIndex, recoverystore.FailAfterIndex} {
		t.Run(string(at), func(t *testing.T) {
			var fail atomic.Bool
			g := newRig(t, failOnce(at, &fail))
			g.apply(accepting(1))
			m, _ := g.connect(hello(1, vda(4)))
			m.pointsAt(time.Now())
			fail.Store(true)
			m.begin("c2")
			m.data(0, 1, random(2, cluster))
			m.send(complete())
			if f := m.recv().GetRefused().GetFailure(); f.GetReason() != umbrav1.ErrorReason_ERROR_REASON_INTERNAL || !f.GetRetryable() {
				t.Errorf("the stream ended with %v", f)
			}
			m, _ = g.connect(hello(1, vda(4)))
			before := len(g.store().Points())
			m.pointsAt(time.Now())
			if n := len(g.store().Points()); n != before+1 || before < 1 {
				t.Errorf("%d points, then %d", before, n)
			}
		})
	}
}

// nor for a failover, after replication has been stopped.
func TestAStoreThatStoppedIsOpenedAnewForAFailover(t *testing.T) {
	var fail atomic.Bool
	g := newRig(t, failOnce(recoverystore.FailViewWritten, &fail))
	g.apply(accepting(1))
	m, _ := g.connect(hello(1, vda(4)))
	m.pointsAt(time.Now())
	g.apply(stopping(1))
	fail.Store(true)
	id := g.store().Points()[0].ID
	if _, err := g.store().OpenView(t.Context(), id, recoverystore.ViewOptions{}); !errors.Is(err, recoverystore.ErrClosed) {
		t.Fatalf("the disk did not fail: %v", err)
	}
	if _, err := g.store().OpenView(t.Context(), id, recoverystore.ViewOptions{}); err != nil {
		t.Errorf("tried again: %v", err)
	}
}
