package session_test

import (
	"testing"
	"testing/synctest"
	"time"

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
