package replicate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestTheMostOverduePairGetsTheNextSlotAndNoMoreThanTheLimitRun(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(t, "slots")
		l := line{free: limit}
		running := 0
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			var served []*ticket
			switch {
			case running > 0 && rapid.Bool().Draw(t, "give back"):
				running--
				served = l.giveBack()
			case len(l.waiting) > 0 && rapid.IntRange(0, 5).Draw(t, "leave") == 0:
				l.leave(rapid.SampledFrom(l.waiting).Draw(t, "who"))
			default:
				due := time.Unix(rapid.Int64Range(0, 20).Draw(t, "due"), 0)
				served = l.join(&ticket{due: due, pair: fmt.Sprint(i)})
			}
			running += len(served)
			if running > limit || running+l.free != limit {
				t.Fatalf("%d run and %d are free of %d", running, l.free, limit)
			}
			if len(l.waiting) > 0 && l.free > 0 {
				t.Fatal("a pair waits although a slot is free")
			}
			for _, s := range served {
				for _, w := range l.waiting {
					if w.due.Before(s.due) {
						t.Fatalf("%v was served before %v", s.due, w.due)
					}
				}
			}
		}
	})
}

func TestAWaiterThatGivesUpLosesNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slots{line: line{free: 1}}
		if err := s.acquire(t.Context(), "a", time.Now()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp := make(chan error)
		go func() { gaveUp <- s.acquire(ctx, "b", time.Now()) }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Fatalf("the waiter got %v", err)
		}
		s.release()
		if err := s.acquire(t.Context(), "c", time.Now()); err != nil {
			t.Fatal(err)
		}
	})
}
