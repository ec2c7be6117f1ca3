package session_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// ofTomorrow is a message of a kind, or a question or an answer, that is not known today.
var ofTomorrow = protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), []byte("something new"))

func TestAHostThatSpeaksANewerProtocolIsToldWhichOneIsSpoken(t *testing.T) {
	p := start(t)
	p.connect(t, "z") // it is open
	for newest, want := range map[uint32]uint32{1: 1, 2: 1, 1 << 31: 1} {
		welcome, err := p.dial(t, "a", &umbrav1.SessionHello{Host: "a", ProtocolVersion: newest}).stream.Recv()
		if got := welcome.GetWelcome().GetProtocolVersion(); err != nil || got != want {
			t.Errorf("a host that speaks up to %d is told to speak %d, %v", newest, got, err)
		}
	}
}

func TestMessagesOfAKindThatIsNotKnownArePassedOver(t *testing.T) {
	p := start(t)
	p.records.put(pairOf("p", "a", "b"))
	h := p.connect(t, "a")
	h.set(t)
	pairs := p.observed.Pairs().Subscribe()
	defer pairs.Close()
	strange := &umbrav1.SessionRequest{}
	strange.ProtoReflect().SetUnknown(ofTomorrow)
	report := reportOf("p", true)
	report.GetMain().ProtoReflect().SetUnknown(ofTomorrow)
	h.say(t, strange)
	h.say(t, strange)
	h.report(t, report)
	<-pairs.C()
	if _, ok := p.observed.Main("p"); !ok {
		t.Error("what it says after that is not heard")
	}
}
