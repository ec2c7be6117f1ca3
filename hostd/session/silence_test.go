package session_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestAControlPlaneThatNeverWelcomesIsDialledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, t.TempDir(), options{})
		began := time.Now()
		<-h.peer.sessions
		<-h.peer.sessions
		if waited := time.Since(began); waited < 20*time.Second || waited > 25*time.Second {
			t.Errorf("it was dialled again after %v", waited)
		}
		h.stop()
	})
}

func TestAHostWithNothingToSayKeepsItsLeaseAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := start(t, t.TempDir(), options{})
		s := <-h.peer.sessions
		s.welcome(t)
		began := time.Now()
		for range 5 {
			s.until(t, func(request *umbrav1.SessionRequest) bool { return request.GetHeartbeat() != nil })
		}
		if took := time.Since(began); took > 5*time.Minute+time.Second {
			t.Errorf("5 heartbeats, one a minute, took %v", took)
		}
		h.stop()
	})
}

func TestAHostThatIsToldToWaitWaitsAndNotForEver(t *testing.T) {
	for asked, least := range map[time.Duration]time.Duration{20 * time.Second: 20 * time.Second, 10 * time.Hour: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			h := start(t, t.TempDir(), options{})
			refused, err := status.New(codes.ResourceExhausted, "too often").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(asked)})
			if err != nil {
				t.Fatal(err)
			}
			s := <-h.peer.sessions
			began := time.Now()
			s.end <- refused.Err()
			<-h.peer.sessions
			if waited := time.Since(began); waited < least || waited > least+5*time.Second {
				t.Errorf("asked to wait %v it dialled again after %v", asked, waited)
			}
			h.stop()
		})
	}
}
