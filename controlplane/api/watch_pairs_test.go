package api_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/umbra-dr/umbra/controlplane/api"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// watcher receives from one WatchDRPairs.
type watcher struct {
	t      *testing.T
	stream umbrav1.FailoverService_WatchDRPairsClient
	last   string
}

func (p *plane) watch(request *umbrav1.WatchDRPairsRequest) *watcher {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	p.t.Cleanup(cancel)
	stream, err := p.failover.WatchDRPairs(ctx, request)
	if err != nil {
		p.t.Fatal(err)
	}
	return &watcher{t: p.t, stream: stream}
}

// next returns the next message.
func (w *watcher) next() *umbrav1.WatchDRPairsResponse {
	w.t.Helper()
	message, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	if message.GetResumeToken() != "" {
		w.last = message.GetResumeToken()
	}
	return message
}

// until returns the first message of that kind about that pair, and how many of other kinds came before it.
func (w *watcher) until(kind umbrav1.WatchKind, pair string) (found *umbrav1.WatchDRPairsResponse, before map[umbrav1.WatchKind]int) {
	w.t.Helper()
	before = map[umbrav1.WatchKind]int{}
	for {
		message := w.next()
		if message.GetKind() == kind && message.GetDrPair().GetName() == pair {
			return message, before
		}
		before[message.GetKind()]++
	}
}

func TestAWatcherGetsTheSnapshotThenSyncedThenChanges(t *testing.T) {
	p := startPlane(t)
	p.manyServers(3)
	w := p.watch(&umbrav1.WatchDRPairsRequest{})
	synced, before := w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	if before[umbrav1.WatchKind_WATCH_KIND_SNAPSHOT] != 3 || len(before) != 1 || synced.GetResumeToken() == "" {
		t.Errorf("before SYNCED came %v", before)
	}
	if _, err := p.protection.PauseReplication(t.Context(), &umbrav1.PauseReplicationRequest{Name: "drPairs/pair-01"}); err != nil {
		t.Fatal(err)
	}
	changed, _ := w.until(umbrav1.WatchKind_WATCH_KIND_CHANGED, "drPairs/pair-01")
	if changed.GetDrPair().GetState() != umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED {
		t.Errorf("the change is %v", changed)
	}
	uid := p.delete("pair-01")
	if gone, _ := w.until(umbrav1.WatchKind_WATCH_KIND_DELETED, "drPairs/pair-01"); gone.GetDrPair().GetUid() != uid {
		t.Errorf("the deletion is %v", gone)
	}
}

// delete removes the pair by force and returns the uid it had.
func (p *plane) delete(id string) (uid string) {
	p.t.Helper()
	pair, err := p.failover.GetDRPair(p.t.Context(), &umbrav1.GetDRPairRequest{Name: "drPairs/" + id})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.protection.DeleteDRPair(p.t.Context(), &umbrav1.DeleteDRPairRequest{Name: "drPairs/" + id, Force: true}); err != nil {
		p.t.Fatal(err)
	}
	return pair.GetDrPair().GetUid()
}

func TestAWatcherThatComesBackGetsWhatItMissedAndNothingElse(t *testing.T) {
	p := startPlane(t)
	p.manyServers(4)
	w := p.watch(&umbrav1.WatchDRPairsRequest{})
	w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	if _, err := p.protection.PauseReplication(t.Context(), &umbrav1.PauseReplicationRequest{Name: "drPairs/pair-01"}); err != nil {
		t.Fatal(err)
	}
	uid := p.delete("pair-02")
	again := p.watch(&umbrav1.WatchDRPairsRequest{ResumeToken: w.last})
	missed := map[string]umbrav1.WatchKind{}
	for {
		message := again.next()
		if message.GetKind() == umbrav1.WatchKind_WATCH_KIND_SYNCED {
			break
		}
		missed[message.GetDrPair().GetName()] = message.GetKind()
		if message.GetKind() == umbrav1.WatchKind_WATCH_KIND_DELETED && message.GetDrPair().GetUid() != uid {
			t.Errorf("the deletion is %v", message)
		}
	}
	if len(missed) != 2 || missed["drPairs/pair-01"] != umbrav1.WatchKind_WATCH_KIND_CHANGED || missed["drPairs/pair-02"] != umbrav1.WatchKind_WATCH_KIND_DELETED {
		t.Errorf("the watcher missed %v", missed)
	}
}

// laggard is a cache that has a pair as it was, until it is waited for.
type laggard struct {
	*store.Cache
	mu   sync.Mutex
	past map[string]store.Entry
}

func (l *laggard) Get(id string) (store.Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, behind := l.past[id]; behind {
		return old, true
	}
	return l.Cache.Get(id)
}

func (l *laggard) Reach(ctx context.Context, revision int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.past = nil
	return l.Cache.Reach(ctx, revision)
}

// The watcher comes from a control plane that was ahead of this one.
func TestAWatcherThatComesBackIsNotShownThePast(t *testing.T) {
	behind := &laggard{past: map[string]store.Entry{}}
	p := startPlaneWith(t, func(deps *api.Deps) { behind.Cache, deps.Cache = deps.Cache.(*store.Cache), behind })
	p.manyServers(1)
	w := p.watch(&umbrav1.WatchDRPairsRequest{})
	w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	old, _ := behind.Get("pair-00")
	if _, err := p.protection.PauseReplication(t.Context(), &umbrav1.PauseReplicationRequest{Name: "drPairs/pair-00"}); err != nil {
		t.Fatal(err)
	}
	behind.mu.Lock()
	behind.past = map[string]store.Entry{"pair-00": old}
	behind.mu.Unlock()
	again := p.watch(&umbrav1.WatchDRPairsRequest{ResumeToken: w.last})
	message, _ := again.until(umbrav1.WatchKind_WATCH_KIND_CHANGED, "drPairs/pair-00")
	if state := message.GetDrPair().GetState(); state != umbrav1.DRPairState_DR_PAIR_STATE_REPLICATION_PAUSED {
		t.Errorf("the pair is shown as %s", state)
	}
}

func TestAWatcherOfSomePairsHearsOfNoOthers(t *testing.T) {
	p := startPlane(t)
	p.manyServers(2)
	w := p.watch(&umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/pair-01"}})
	_, before := w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	if before[umbrav1.WatchKind_WATCH_KIND_SNAPSHOT] != 1 {
		t.Errorf("before SYNCED came %v", before)
	}
	p.delete("pair-00")
	p.delete("pair-01")
	if message := w.next(); message.GetDrPair().GetName() != "drPairs/pair-01" {
		t.Errorf("got %v", message)
	}
}

func TestAnExpiredResumeTokenIsOutOfRange(t *testing.T) {
	p := startPlane(t)
	p.manyServers(1)
	w := p.watch(&umbrav1.WatchDRPairsRequest{})
	w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	p.delete("pair-00")
	now, err := p.etcd.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.etcd.Compact(t.Context(), now.Header.Revision); err != nil {
		t.Fatal(err)
	}
	_, err = p.watch(&umbrav1.WatchDRPairsRequest{ResumeToken: w.last}).stream.Recv()
	wantError(t, err, codes.OutOfRange, "RESUME_TOKEN_EXPIRED")
}

func TestFiguresOfAPairReachAWatcherWithoutAStoredChange(t *testing.T) {
	p := startPlane(t)
	before := p.protect()
	w := p.watch(&umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/a"}})
	w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	for done := range int64(5) {
		p.reportMain("a", &umbrav1.MainReport{
			Phase: umbrav1.MainPhase_MAIN_PHASE_REPLICATING, ResyncGeneration: 1, Progress: &umbrav1.Progress{DoneBytes: 1 + done},
		})
	}
	message, _ := w.until(umbrav1.WatchKind_WATCH_KIND_CHANGED, "drPairs/a")
	if pair := message.GetDrPair(); pair.GetReplication().GetProgress().GetDoneBytes() != 5 || pair.GetEtag() != before.GetEtag() {
		t.Errorf("got %v", message)
	}
}

// hastyClock ticks a hundred times as often as it is asked to.
type hastyClock struct{ clock.Clock }

func (c hastyClock) NewTicker(d time.Duration) *time.Ticker { return c.Clock.NewTicker(d / 100) }

func TestAWatcherOfWhichNothingChangesGetsBookmarksToComeBackWith(t *testing.T) {
	p := startPlaneAt(t, hastyClock{clock.System})
	p.manyServers(2)
	w := p.watch(&umbrav1.WatchDRPairsRequest{Names: []string{"drPairs/pair-00"}})
	w.until(umbrav1.WatchKind_WATCH_KIND_SYNCED, "")
	synced := w.last
	p.delete("pair-01") // nothing that this watcher hears of
	for w.last == synced {
		if message := w.next(); message.GetKind() != umbrav1.WatchKind_WATCH_KIND_BOOKMARK || message.GetResumeToken() == "" {
			t.Fatalf("got %v", message)
		}
	}
	again := p.watch(&umbrav1.WatchDRPairsRequest{ResumeToken: w.last})
	if message := again.next(); message.GetKind() != umbrav1.WatchKind_WATCH_KIND_SYNCED {
		t.Errorf("with the bookmark the watcher gets %v", message)
	}
}
