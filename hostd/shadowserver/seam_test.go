package shadowserver

import (
	"context"
	"log/slog"
	"testing"

	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/hostd/replica"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// TestTheRealReplicaGoesAlongWithTheWholeFlow plays the flow against hostd/replica, whose refusal of stale specs and
// of stopped epochs the fake only sketches.
func TestTheRealReplicaGoesAlongWithTheWholeFlow(t *testing.T) {
	inBubble(t, 2, func(t *testing.T, w *world) {
		w.replica.close()
		w.replica.gone = true // the store is the real one's now
		j, err := journal.Open(w.dir + "/replica-state")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var l *life
		r, err := replica.New(replica.Config{StoreDir: w.storeDir(), Journal: j, Clock: clock.System, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		w.real = r
		receive := assignment(1, 1, modeReceive)
		l = w.start(receive)
		defer func() {
			l.end()
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if err := j.Close(); err != nil {
				t.Error(err)
			}
		}()
		l.phase(receive, receiving)
		l.act(assignment(2, 2, modeRun, attemptOf(1, 1)), running)

		// Restart Replication while an attempt's view is open: the points it deletes must be free by then.
		restart := assignment(3, 3, modeReceive)
		restart.GetShadow().ResyncGeneration = 1
		restart.GetShadow().DeletePointsOnResync = true
		if got := l.act(restart, receiving); got.GetRecoveryPointCount() != 0 || got.GetStoppedEpoch() != 2 {
			t.Errorf("after the restart: %v", got)
		}
		wantNothingLeft(t, w)
		store, err := r.Store(pair)
		if err != nil {
			t.Fatal(err)
		}
		if v := store.Views(); len(v) > 0 {
			t.Errorf("views are left: %v", v)
		}

		w.replica.store = store
		w.addPoint(2)
		l.end()
		l = w.start(assignment(4, 4, modeRun, attemptOf(2, 2)))
		l.phase(assignment(4, 4, modeRun), running)
		l.act(assignment(5, 5, modeCommit, attemptOf(2, 2), deletePoints), committed)
		l.act(assignment(6, 6, modeDelete), deleted)
		w.replica.store = nil
		wantCommitted(t, w, 2)
		if fileExists(w.storeDir() + "/" + pair) {
			t.Error("the store is left")
		}
	})
}
