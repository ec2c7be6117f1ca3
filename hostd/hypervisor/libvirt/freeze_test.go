package libvirt

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// scriptedGuest freezes and thaws as told, and remembers.
type scriptedGuest struct {
	freezeTakes time.Duration
	freezeError error
	thawErrors  int // the first so many thaws fail

	mu     sync.Mutex
	frozen bool
	thaws  int
}

func (g *scriptedGuest) isFrozen() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.frozen
}

func (g *scriptedGuest) setFrozen(frozen bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.frozen = frozen
}

func (g *scriptedGuest) freeze(ctx context.Context) (int, error) {
	if g.freezeError != nil {
		return 0, g.freezeError
	}
	// The guest goes on freezing when it is not waited for any more.
	err := clock.System.Wait(ctx, g.freezeTakes)
	g.setFrozen(true)
	if err != nil {
		return 0, hypervisor.ErrAgent
	}
	return 1, nil
}

func (g *scriptedGuest) thaw(context.Context) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.thaws++
	if g.thaws <= g.thawErrors {
		return 0, hypervisor.ErrAgent
	}
	count := 0
	if g.frozen {
		count = 1
	}
	g.frozen = false
	return count, nil
}

func freezerOf(t *testing.T, g *scriptedGuest) freezer {
	e := newErrands()
	t.Cleanup(e.close)
	return freezer{fileSystems: g, clock: clock.System, errands: e, log: slog.New(slog.DiscardHandler)}
}

func TestMomentIsFrozenAndThawedAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGuest{freezeTakes: 100 * time.Millisecond}
		frozen, why, err := freezerOf(t, g).during(t.Context(), time.Second, func(context.Context) error {
			if !g.isFrozen() {
				t.Error("the moment is not frozen")
			}
			return nil
		})
		if !frozen || why != nil || err != nil || g.isFrozen() || g.thaws != 1 {
			t.Errorf("frozen %v, why %v, error %v, still frozen %v, thaws %d", frozen, why, err, g.isFrozen(), g.thaws)
		}
	})
}

func TestFailedMomentIsThawedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, failure := &scriptedGuest{}, errors.New("no backup")
		_, _, err := freezerOf(t, g).during(t.Context(), time.Second, func(context.Context) error { return failure })
		if !errors.Is(err, failure) || g.isFrozen() {
			t.Errorf("error %v, still frozen %v", err, g.isFrozen())
		}
	})
}

func TestGuestIsNeverFrozenBeyondTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGuest{freezeTakes: 300 * time.Millisecond}
		begun := time.Now()
		frozen, why, err := freezerOf(t, g).during(t.Context(), time.Second, func(context.Context) error {
			time.Sleep(time.Second - 300*time.Millisecond - time.Millisecond)
			synctest.Wait()
			if !g.isFrozen() {
				t.Errorf("thawed after %v of a budget of a second", time.Since(begun))
			}
			time.Sleep(2 * time.Millisecond)
			synctest.Wait()
			if g.isFrozen() {
				t.Errorf("still frozen after %v of a budget of a second", time.Since(begun))
			}
			return nil
		})
		if frozen || !errors.Is(why, errThawedEarly) || err != nil {
			t.Errorf("frozen %v, why %v, error %v; want a backup that says it was thawed early", frozen, why, err)
		}
	})
}

func TestFreezeThatDoesNotAnswerIsThawedAndTheBackupGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGuest{freezeTakes: time.Hour, thawErrors: 3}
		happened := false
		f := freezerOf(t, g)
		frozen, why, err := f.during(t.Context(), time.Second, func(context.Context) error {
			happened = true
			return nil
		})
		if frozen || !errors.Is(why, hypervisor.ErrAgent) || err != nil || !happened {
			t.Errorf("frozen %v, why %v, error %v, happened %v", frozen, why, err, happened)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if g.isFrozen() || g.thaws != 4 {
			t.Errorf("after %d thaws the guest is frozen: %v; want the first that it answers", g.thaws, g.isFrozen())
		}
	})
}

func TestGuestIsThawedWhenTheCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGuest{}
		ctx, cancel := context.WithCancel(t.Context())
		_, _, err := freezerOf(t, g).during(ctx, time.Second, func(ctx context.Context) error {
			cancel()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) || g.isFrozen() {
			t.Errorf("error %v, still frozen %v", err, g.isFrozen())
		}
	})
}

func TestGuestThatThawedByItselfWasNotFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGuest{}
		frozen, why, _ := freezerOf(t, g).during(t.Context(), time.Second, func(context.Context) error {
			g.setFrozen(false)
			return nil
		})
		if frozen || !errors.Is(why, errThawedAlready) {
			t.Errorf("frozen %v, why %v", frozen, why)
		}
	})
}

func TestServerWithoutAnAgentIsAskedNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &scriptedGuest{freezeError: errNoAgent}
		frozen, why, err := freezerOf(t, g).during(t.Context(), time.Second, func(context.Context) error { return nil })
		if frozen || !errors.Is(why, hypervisor.ErrAgent) || err != nil || g.thaws != 0 {
			t.Errorf("frozen %v, why %v, error %v, thaws %d", frozen, why, err, g.thaws)
		}
	})
}
