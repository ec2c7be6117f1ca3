package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestAHostsClockIsMeasuredAndAMessageThatIsLateDoesNotSpoilIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		synctest.Wait()
		h := p.connect(t, "a")
		// say is an inventory of a host whose clock is ahead, which is so late on its way.
		say := func(ahead, late time.Duration) {
			h.inventory(t, &umbrav1.Host{
				ClockTime:   timestamppb.New(time.Now().Add(ahead - late)),
				ClockOffset: durationpb.New(time.Hour), // what it says itself does not count
			})
			synctest.Wait()
		}
		offset := func() time.Duration {
			host, _ := p.observed.Host("a")
			return host.Inventory.GetClockOffset().AsDuration()
		}
		for _, ahead := range []time.Duration{0, 3 * time.Minute} {
			say(ahead, 0)
			say(ahead, 20*time.Second)
			if got := offset(); got != ahead {
				t.Errorf("a clock that is %v ahead is measured as %v", ahead, got)
			}
		}
		for range 8 {
			say(-7*time.Minute, time.Second)
		}
		if got, want := offset(), -7*time.Minute-time.Second; got != want {
			t.Errorf("a clock that was set back is measured as %v, not %v", got, want)
		}
		h.inventory(t, &umbrav1.Host{ClockOffset: durationpb.New(time.Hour)})
		synctest.Wait()
		if host, _ := p.observed.Host("a"); host.Inventory.GetClockOffset() != nil {
			t.Errorf("a host that does not say its time has an offset of %v", host.Inventory.GetClockOffset().AsDuration())
		}
		p.stop()
	})
}
