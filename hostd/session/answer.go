package session

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
)

const answerTimeout = 20 * time.Second

// startAnswer answers in a goroutine of its own, when one of answersMax places is free. Receiving waits for them.
func (t *talk) startAnswer(ctx context.Context, query *umbrav1.HostQuery) {
	select {
	case t.answering <- struct{}{}:
	case <-ctx.Done():
		return
	}
	t.answers.Go(func() {
		defer func() { <-t.answering }()
		t.answer(ctx, query)
	})
}

// answer finds the answer to a question and queues it for sending. A session that ends meanwhile needs none.
func (t *talk) answer(ctx context.Context, query *umbrav1.HostQuery) {
	bounded, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	answer, err := t.find(bounded, query)
	if size := proto.Size(answer); err == nil && size > answerBytesMax {
		err = status.Errorf(codes.ResourceExhausted, "the answer has %d bytes, at most %d can be sent", size, answerBytesMax)
	}
	if err != nil {
		failed := statusOf(err)
		answer = &umbrav1.QueryAnswer{Code: failed.Proto().GetCode(), ErrorMessage: failed.Message()}
	}
	answer.Id = query.GetId()
	select {
	case t.outgoing <- &umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_QueryAnswer{QueryAnswer: answer}}:
	case <-ctx.Done():
	}
}

// statusOf is the error's status; that of a time-out or an end, wherever it is wrapped.
func statusOf(err error) *status.Status {
	if failed, ok := status.FromError(err); ok {
		return failed
	}
	return status.FromContextError(err)
}

func (t *talk) find(ctx context.Context, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error) {
	switch query.GetQuestion().(type) {
	case *umbrav1.HostQuery_Inventory:
		return &umbrav1.QueryAnswer{Answer: &umbrav1.QueryAnswer_Inventory{Inventory: t.inventory(ctx)}}, nil
	case *umbrav1.HostQuery_Holdings:
		held, err := t.holdings(ctx)
		return &umbrav1.QueryAnswer{Answer: &umbrav1.QueryAnswer_Holdings{Holdings: &umbrav1.HoldingsAnswer{Held: held}}}, err
	case *umbrav1.HostQuery_Diagnostics:
		files, err := t.session.Answerer.Diagnostics(ctx, query.GetDrPair())
		return &umbrav1.QueryAnswer{Answer: &umbrav1.QueryAnswer_Diagnostics{
			Diagnostics: &umbrav1.DiagnosticsAnswer{Files: files},
		}}, err
	case *umbrav1.HostQuery_RecoveryPoints:
		points, err := t.session.Answerer.RecoveryPoints(ctx, query.GetDrPair())
		return &umbrav1.QueryAnswer{Answer: &umbrav1.QueryAnswer_RecoveryPoints{
			RecoveryPoints: &umbrav1.RecoveryPointsAnswer{RecoveryPoints: points},
		}}, err
	default:
		return nil, status.Error(codes.Unimplemented, "this hostd does not know the question: upgrade the host")
	}
}

// holdings are the kept assignments, also those that a control plane has forgotten.
func (t *talk) holdings(ctx context.Context) ([]*umbrav1.Held, error) {
	records, err := journal.All[kept](t.session.Journal, journal.Assignments)
	if err != nil {
		return nil, err
	}
	all := make([]*umbrav1.Held, 0, len(records))
	for pair, record := range records {
		held := &umbrav1.Held{Assignment: &umbrav1.Assignment{}}
		if err := proto.Unmarshal(record.Assignment, held.GetAssignment()); err != nil {
			t.session.Log.Error("a kept assignment cannot be read", "pair", pair, "error", err)
			continue
		}
		if held.GetAssignment().GetShadow() != nil {
			t.session.Answerer.Held(ctx, held)
		}
		all = append(all, held)
	}
	return all, nil
}
