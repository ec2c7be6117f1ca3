package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/session"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// asked is the host's next question.
func (h *host) asked(t *testing.T) *umbrav1.HostQuery {
	t.Helper()
	for {
		response, err := h.stream.Recv()
		if err != nil {
			t.Errorf("waiting for a question: %v", err)
			return nil
		}
		if query := response.GetQuery(); query != nil {
			return query
		}
	}
}

func (h *host) answer(t *testing.T, answer *umbrav1.QueryAnswer) {
	t.Helper()
	h.say(t, &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_QueryAnswer{QueryAnswer: answer}})
}

func TestAQuestionGetsItsOwnAnswer(t *testing.T) {
	p := start(t)
	h := p.connect(t, "a")
	got := make(chan []*umbrav1.RecoveryPoint, 2)
	for _, pair := range []string{"p", "q"} {
		go func() {
			points, err := p.server.RecoveryPoints(t.Context(), "a", pair)
			if err != nil || len(points) != 1 || points[0].GetName() != pair {
				t.Errorf("asked for %s: %v, %v", pair, points, err)
			}
			got <- points
		}()
	}
	first, second := h.asked(t), h.asked(t)
	for _, query := range []*umbrav1.HostQuery{second, first} {
		h.answer(t, &umbrav1.QueryAnswer{Id: query.GetId() + 1000})
		h.answer(t, &umbrav1.QueryAnswer{Id: query.GetId(), Answer: &umbrav1.QueryAnswer_RecoveryPoints{
			RecoveryPoints: &umbrav1.RecoveryPointsAnswer{RecoveryPoints: []*umbrav1.RecoveryPoint{{Name: query.GetDrPair()}}},
		}})
		h.answer(t, &umbrav1.QueryAnswer{Id: query.GetId(), Code: 3})
		<-got
	}
}

func TestARefusalIsTheHostsStatusAndAnythingElseIsNotTakenForAnAnswer(t *testing.T) {
	p := start(t)
	h := p.connect(t, "a")
	for _, c := range []struct {
		answer *umbrav1.QueryAnswer
		want   codes.Code
	}{
		{&umbrav1.QueryAnswer{Code: int32(codes.NotFound), ErrorMessage: "no such pair"}, codes.NotFound},
		{&umbrav1.QueryAnswer{Code: -1}, codes.Unknown},
		{&umbrav1.QueryAnswer{Code: 99}, codes.Unknown},
		{&umbrav1.QueryAnswer{}, codes.Internal},
		{&umbrav1.QueryAnswer{Answer: &umbrav1.QueryAnswer_Diagnostics{}}, codes.Internal},
	} {
		failed := make(chan error, 1)
		go func() {
			_, err := p.server.RecoveryPoints(t.Context(), "a", "p")
			failed <- err
		}()
		c.answer.Id = h.asked(t).GetId()
		h.answer(t, c.answer)
		if err := <-failed; status.Code(err) != c.want || !strings.Contains(err.Error(), c.answer.GetErrorMessage()) {
			t.Errorf("the answer %v became %v", c.answer, err)
		}
	}
}

func TestAskingAHostThatIsNotThereOrLeavesFailsAtOnce(t *testing.T) {
	p := start(t)
	if _, err := p.server.Diagnostics(t.Context(), "a", "p"); !errors.Is(err, session.ErrNotConnected) {
		t.Errorf("without a session: %v", err)
	}
	h := p.connect(t, "a")
	failed := make(chan error, 1)
	go func() {
		_, err := p.server.Diagnostics(t.Context(), "a", "p")
		failed <- err
	}()
	h.asked(t)
	h.end()
	if err := <-failed; !errors.Is(err, session.ErrNotConnected) {
		t.Errorf("when the session ends: %v", err)
	}
}

func TestAHostThatDoesNotAnswerIsNotWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := start(t)
		synctest.Wait()
		h := p.connect(t, "a")
		stop := make(chan struct{})
		spoken := make(chan struct{})
		go func() {
			defer close(spoken)
			for {
				select {
				case <-stop:
					return
				case <-time.After(lease / 4):
					h.say(t, &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Heartbeat{Heartbeat: &umbrav1.Heartbeat{}}})
				}
			}
		}()
		began := time.Now()
		for range 200 { // more than are held for a host that does not read
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			if _, err := p.server.RecoveryPoints(ctx, "a", "p"); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("within a millisecond: %v", err)
			}
			cancel()
		}
		if _, err := p.server.RecoveryPoints(t.Context(), "a", "p"); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		close(stop)
		<-spoken
		p.stop()
	})
}

func TestRefreshNotesWhatTheHostHasNow(t *testing.T) {
	p := start(t)
	h := p.connect(t, "a")
	failed := make(chan error, 1)
	go func() { failed <- p.server.Refresh(t.Context(), "a") }()
	h.answer(t, &umbrav1.QueryAnswer{Id: h.asked(t).GetId(), Answer: &umbrav1.QueryAnswer_Inventory{Inventory: &umbrav1.Host{HostdVersion: "7"}}})
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if host, _ := p.observed.Host("a"); host.Inventory.GetHostdVersion() != "7" {
		t.Errorf("observed is %v", host.Inventory)
	}
}

// elsewhere is another control plane that has the session of host "a".
func elsewhere(answer *umbrav1.QueryAnswer, err error) func(*session.Config) {
	return func(cfg *session.Config) {
		cfg.Observed.Connect("a", 7, "there", epoch)
		cfg.Elsewhere = func(_ context.Context, holder, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
			if holder != "there" || host != "a" || query.GetDrPair() != "p" {
				return nil, fmt.Errorf("%s was asked about %s: %v", holder, host, query)
			}
			return answer, err
		}
	}
}

func TestAHostThatHasItsSessionElsewhereIsAskedThere(t *testing.T) {
	answer := &umbrav1.QueryAnswer{Answer: &umbrav1.QueryAnswer_RecoveryPoints{
		RecoveryPoints: &umbrav1.RecoveryPointsAnswer{RecoveryPoints: []*umbrav1.RecoveryPoint{{Name: "rp"}}},
	}}
	p := start(t, elsewhere(answer, nil))
	points, err := p.server.RecoveryPoints(t.Context(), "a", "p")
	if err != nil || len(points) != 1 || points[0].GetName() != "rp" {
		t.Errorf("asked: %v, %v", points, err)
	}
	if _, err := p.server.AskHere(t.Context(), "a", &umbrav1.HostQuery{}); !errors.Is(err, session.ErrNotConnected) {
		t.Errorf("asked for a session that is elsewhere: %v", err)
	}
	if _, err := p.server.RecoveryPoints(t.Context(), "z", "p"); !errors.Is(err, session.ErrNotConnected) {
		t.Errorf("a host that is nowhere was asked: %v", err)
	}
	refusing := start(t, elsewhere(&umbrav1.QueryAnswer{Code: int32(codes.NotFound), ErrorMessage: "no such pair"}, nil))
	if _, err := refusing.server.RecoveryPoints(t.Context(), "a", "p"); status.Code(err) != codes.NotFound {
		t.Errorf("the host's refusal is %v", err)
	}
	silent := start(t, elsewhere(nil, session.ErrElsewhere))
	if _, err := silent.server.RecoveryPoints(t.Context(), "a", "p"); !errors.Is(err, session.ErrElsewhere) || errors.Is(err, session.ErrNotConnected) {
		t.Errorf("a control plane that does not answer: %v", err)
	}
}
