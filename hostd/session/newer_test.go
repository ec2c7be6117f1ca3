package session_test

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// ofTomorrow is a message of a kind, or a question or an answer, that is not known today.
var ofTomorrow = protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), []byte("something new"))

func TestMessagesOfAKindThatIsNotKnownArePassedOver(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	h.main.next(t)
	s := h.dialled(t)
	s.welcome(t)
	strange := &umbrav1.SessionResponse{}
	strange.ProtoReflect().SetUnknown(ofTomorrow)
	s.send(t, strange)
	s.send(t, strange)
	s.assign(t, complete(mainOf("m", 1)))
	if mains := h.main.next(t); !slices.Equal(names(mains.set), []string{"m"}) {
		t.Errorf("after that it is assigned %v", mains.set)
	}
}

func TestAQuestionThatIsNotKnownIsAnsweredSo(t *testing.T) {
	h := start(t, t.TempDir(), options{answerer: answerer{points: func(context.Context, string) ([]*umbrav1.RecoveryPoint, error) {
		t.Error("it takes the question for another one")
		return nil, nil
	}}})
	s := h.dialled(t)
	s.welcome(t)
	query := &umbrav1.HostQuery{Id: 7, DrPair: "p"}
	query.ProtoReflect().SetUnknown(ofTomorrow)
	s.send(t, &umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Query{Query: query}})
	s.until(t, func(request *umbrav1.SessionRequest) bool {
		answer := request.GetQueryAnswer()
		if answer != nil && (answer.GetId() != 7 || codes.Code(answer.GetCode()) != codes.Unimplemented) {
			t.Errorf("it answers %v", answer)
		}
		return answer != nil
	})
}

// 0 is a control plane from before it said which.
func TestOnlyAProtocolThatBothSpeakIsSpoken(t *testing.T) {
	h := start(t, t.TempDir(), options{})
	h.main.next(t)
	for _, spoken := range []uint32{2, 0, 1} {
		s := h.dialled(t)
		s.send(t, &umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Welcome{Welcome: &umbrav1.SessionWelcome{ProtocolVersion: spoken}}})
		if spoken == 2 {
			continue // it dials again
		}
		s.assign(t, complete(mainOf("m", uint64(spoken+1))))
		if mains := h.main.next(t); len(mains.set) != 1 || mains.set[0].GetGeneration() != uint64(spoken+1) {
			t.Errorf("with protocol %d it is assigned %v", spoken, mains.set)
		}
		s.end <- nil
	}
}
