package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestAHostThatDialsWithoutEndGetsNoMoreThanASessionASecondAndTouchesNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		synctest.Wait()
		other := p.connect(t, "b")
		// storm dials as fast as it can and tells how many sessions have begun.
		storm := func(dials int) (began int) {
			for range dials {
				h := p.dial(t, "a", &umbrav1.SessionHello{Host: "a", ProtocolVersion: 1})
				_, err := h.stream.Recv()
				h.end()
				synctest.Wait()
				if err == nil {
					began++
					continue
				}
				var delay time.Duration
				for _, detail := range status.Convert(err).Details() {
					if retry, ok := detail.(*errdetails.RetryInfo); ok {
						delay = retry.GetRetryDelay().AsDuration()
					}
				}
				if status.Code(err) != codes.ResourceExhausted || delay <= 0 {
					t.Fatalf("it is told %v, and to wait %v", err, delay)
				}
			}
			return began
		}
		before := p.registry.count()
		if began := storm(200); began > 60 || p.registry.count() != before+uint64(began) {
			t.Errorf("of 200 sessions at once %d began, %d in the registry", began, p.registry.count()-before)
		}
		time.Sleep(10 * time.Second)
		if began := storm(200); began != 10 {
			t.Errorf("10 s later %d began", began)
		}
		for range 6 { // a host that has calmed down is as any other
			other.report(t)
			time.Sleep(10 * time.Second)
		}
		if began := storm(15); began != 15 {
			t.Errorf("a minute later %d of 15 began", began)
		}
		other.report(t)
		synctest.Wait()
		if !p.observed.Connected("b") {
			t.Error("another host has lost its session")
		}
		p.connect(t, "c")
		p.stop()
	})
}
