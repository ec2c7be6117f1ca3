package session

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	outgoingMax     = 64
	answersMax      = 16
	reportsBatchMax = 256
	// reportsBatchBytes is where a batch of reports ends. Well below what the control plane takes as one message, as is
	// answerBytesMax, which an answer may have: a longer message would end the session.
	reportsBatchBytes = 1 << 20
	answerBytesMax    = 3 << 20
	inventoryTimeout  = 20 * time.Second
	// gather is how long reports wait for others to share their message.
	gather = 20 * time.Millisecond
)

// talk is one open stream.
type talk struct {
	session     *Session
	stream      umbrav1.HostSessionService_SessionClient
	outgoing    chan *umbrav1.SessionRequest // answers to questions
	inventories chan *umbrav1.Host
	answering   chan struct{} // a place for each question that is being answered
	answers     sync.WaitGroup
}

func newTalk(s *Session, stream umbrav1.HostSessionService_SessionClient) *talk {
	return &talk{
		session: s, stream: stream, outgoing: make(chan *umbrav1.SessionRequest, outgoingMax),
		inventories: make(chan *umbrav1.Host), answering: make(chan struct{}, answersMax),
	}
}

// send says everything that this host has to say, until the context ends.
func (t *talk) send(ctx context.Context, heartbeat time.Duration) error {
	s := t.session
	beat := s.Clock.NewTicker(max(heartbeat, gather))
	defer beat.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.outbox.wake:
			_ = s.Clock.Wait(ctx, gather) // a context that has ended is seen at the next turn
			err = t.sendReports()
		case request := <-t.outgoing:
			err = t.stream.Send(request)
		case host := <-t.inventories:
			host.ClockTime = timestamppb.New(s.Clock.Now())
			err = t.stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Inventory{Inventory: host}})
		case <-beat.C:
			err = t.stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Heartbeat{Heartbeat: &umbrav1.Heartbeat{}}})
		}
		if err != nil {
			return fmt.Errorf("talking to the control plane: %w", err)
		}
	}
}

func (t *talk) sendReports() error {
	for {
		batch := t.session.outbox.take(reportsBatchMax, reportsBatchBytes)
		if len(batch) == 0 {
			return nil
		}
		message := &umbrav1.SessionRequest_Reports{Reports: &umbrav1.AssignmentReports{Reports: batch}}
		if err := t.stream.Send(&umbrav1.SessionRequest{Message: message}); err != nil {
			return err
		}
	}
}

// takeInventories takes what the host has at the beginning and then at a beat. It may hang as long as the hypervisor
// does; everything else goes on meanwhile.
func (t *talk) takeInventories(ctx context.Context) {
	beat := t.session.Clock.NewTicker(t.session.InventoryEvery)
	defer beat.Stop()
	for {
		if host := t.inventory(ctx); host != nil {
			select {
			case t.inventories <- host:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}

// inventory is what the host has. When the hypervisor does not answer, that is told too: as a host that cannot protect.
func (t *talk) inventory(ctx context.Context) *umbrav1.Host {
	bounded, cancel := context.WithTimeout(ctx, inventoryTimeout)
	defer cancel()
	host, err := t.session.Inventory(bounded)
	if err != nil && ctx.Err() == nil {
		t.session.Log.Warn("the host's inventory is not complete", "error", err)
	}
	return host
}

// receive takes in what the control plane says, until the stream ends, and returns why it ended.
func (t *talk) receive(ctx context.Context) error {
	defer t.answers.Wait()
	strange := false
	for {
		response, err := t.stream.Recv()
		if err != nil {
			return fmt.Errorf("listening to the control plane: %w", err)
		}
		switch message := response.GetMessage().(type) {
		case *umbrav1.SessionResponse_Assignments:
			if err := t.session.assigned.take(message.Assignments); err != nil {
				return err
			}
			t.session.assign(true)
		case *umbrav1.SessionResponse_Query:
			t.startAnswer(ctx, message.Query)
		case nil: // of a newer control plane, which may not send what pairs depend on in this way
			if !strange {
				strange = true
				t.session.Log.Warn("the control plane sends messages of a kind that is not known here, which are passed over; upgrade this host")
			}
		default:
			return fmt.Errorf("the control plane sent a message that does not belong here: %T", message)
		}
	}
}
