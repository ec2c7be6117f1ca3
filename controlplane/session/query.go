package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

var (
	// ErrNotConnected means that the host that would have to answer has no session.
	ErrNotConnected = errors.New("the host is not connected")
	// ErrElsewhere means that the host has its session with another control plane, and that one does not answer.
	ErrElsewhere = errors.New("the control plane that the host is connected to does not answer")
)

// queryTimeout bounds how long a host that is connected may leave a question without an answer. It is longer than a
// host takes to give up by itself.
const queryTimeout = 30 * time.Second

// RecoveryPoints asks a host for the recovery points of a pair, newest first. Errors: ErrNotConnected, ErrElsewhere,
// the context's, or a status of the host's.
func (s *Server) RecoveryPoints(ctx context.Context, host, pair string) ([]*umbrav1.RecoveryPoint, error) {
	answer, err := s.ask(ctx, host, &umbrav1.HostQuery{
		DrPair: pair, Question: &umbrav1.HostQuery_RecoveryPoints{RecoveryPoints: &umbrav1.RecoveryPointsQuery{}},
	})
	if err == nil && answer.GetRecoveryPoints() == nil {
		return nil, errOtherAnswer(host)
	}
	return answer.GetRecoveryPoints().GetRecoveryPoints(), err
}

// Diagnostics asks a host for its files of a pair's support bundle. Errors as of RecoveryPoints.
func (s *Server) Diagnostics(ctx context.Context, host, pair string) ([]*umbrav1.DiagnosticsFile, error) {
	answer, err := s.ask(ctx, host, &umbrav1.HostQuery{
		DrPair: pair, Question: &umbrav1.HostQuery_Diagnostics{Diagnostics: &umbrav1.DiagnosticsQuery{}},
	})
	if err == nil && answer.GetDiagnostics() == nil {
		return nil, errOtherAnswer(host)
	}
	return answer.GetDiagnostics().GetFiles(), err
}

// Holdings asks a host what it holds, of all pairs. Errors as of RecoveryPoints.
func (s *Server) Holdings(ctx context.Context, host string) ([]*umbrav1.Held, error) {
	answer, err := s.ask(ctx, host, &umbrav1.HostQuery{Question: &umbrav1.HostQuery_Holdings{Holdings: &umbrav1.HoldingsQuery{}}})
	if err == nil && answer.GetHoldings() == nil { // a host of an earlier version takes the question for another one
		return nil, errOtherAnswer(host)
	}
	return answer.GetHoldings().GetHeld(), err
}

// Refresh asks a host what it has now, and notes the answer in package observed. Errors as of RecoveryPoints.
func (s *Server) Refresh(ctx context.Context, host string) error {
	known, _ := s.Observed.Host(host)
	answer, err := s.ask(ctx, host, &umbrav1.HostQuery{
		Question: &umbrav1.HostQuery_Inventory{Inventory: &umbrav1.InventoryQuery{}},
	})
	if inventory := answer.GetInventory(); inventory != nil && !oversized(inventory) {
		inventory.ClockOffset = known.Inventory.GetClockOffset() // measured where its session is
		s.Observed.SetInventory(host, known.Session, inventory, s.Clock.Now())
	}
	return err
}

// ask asks the host wherever it has its session.
func (s *Server) ask(ctx context.Context, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	answer, err := s.AskHere(ctx, host, query)
	if errors.Is(err, ErrNotConnected) && s.Elsewhere != nil {
		if known, _ := s.Observed.Host(host); known.Connected {
			answer, err = s.Elsewhere(ctx, known.Holder, host, query)
		}
	}
	if err == nil && answer.GetCode() != 0 {
		err = status.Error(codeOf(answer), answer.GetErrorMessage())
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// AskHere asks a host that has its session with this control plane, and returns the answer, also one that says that the
// host could not. Errors: ErrNotConnected, the context's.
func (s *Server) AskHere(ctx context.Context, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
	session := s.session(host)
	if session == nil {
		return nil, fmt.Errorf("asking host %s: %w", host, ErrNotConnected)
	}
	query = proto.CloneOf(query)
	answers := session.expect(query)
	defer session.forget(query.GetId())
	select {
	case session.queries <- query:
	case <-session.done:
		return nil, fmt.Errorf("asking host %s: %w", host, ErrNotConnected)
	case <-ctx.Done():
		return nil, fmt.Errorf("asking host %s: %w", host, context.Cause(ctx))
	}
	select {
	case answer := <-answers:
		return answer, nil
	case <-session.done:
		return nil, fmt.Errorf("waiting for host %s: %w", host, ErrNotConnected)
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for host %s: %w", host, context.Cause(ctx))
	}
}

// codeOf is the host's code, if it is one.
func codeOf(answer *umbrav1.QueryAnswer) codes.Code {
	if code := answer.GetCode(); code > 0 && code <= int32(codes.Unauthenticated) {
		return codes.Code(code)
	}
	return codes.Unknown
}

func errOtherAnswer(host string) error {
	return status.Errorf(codes.Internal, "host %s answered another question than the one that was asked", host)
}

// expect numbers the query and makes the channel that its answer will come on.
func (h *hostSession) expect(query *umbrav1.HostQuery) <-chan *umbrav1.QueryAnswer {
	answers := make(chan *umbrav1.QueryAnswer, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastID++
	query.Id = h.lastID
	h.waiting[query.GetId()] = answers
	return answers
}

func (h *hostSession) forget(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiting, id)
}

func (h *hostSession) answered(answer *umbrav1.QueryAnswer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if answers, ok := h.waiting[answer.GetId()]; ok {
		delete(h.waiting, answer.GetId())
		answers <- answer
	}
}
