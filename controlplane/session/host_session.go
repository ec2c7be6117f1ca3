package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

const (
	// queriesMax bounds the questions that wait to be sent to one host.
	queriesMax = 64
	// silentTicksMax parts the lease. Silence is counted in ticks that were seen, so that a control plane that was
	// itself stopped for a while does not blame all hosts for it.
	silentTicksMax = 3
)

// hostSession is one stream of one host.
type hostSession struct {
	server *Server
	host   string
	number uint64 // of the host's sessions, see package registry
	// protocol is the version that is spoken: the newest that both know.
	protocol uint32
	done     chan struct{}
	wake     chan struct{} // assignments may have changed
	queries  chan *umbrav1.HostQuery

	// Of serve alone.
	keepNext, keepRetry time.Time
	offsets             []time.Duration // what was last measured of the host's clock, the latest last
	strange             bool            // a message of a kind that is not known has come

	mu      sync.Mutex
	lastID  uint64
	waiting map[uint64]chan *umbrav1.QueryAnswer
}

func newHostSession(server *Server, host string, newest uint32) *hostSession {
	return &hostSession{
		server: server, host: host, protocol: min(newest, protocolNewest), done: make(chan struct{}), wake: make(chan struct{}, 1),
		queries: make(chan *umbrav1.HostQuery, queriesMax), waiting: map[uint64]chan *umbrav1.QueryAnswer{},
	}
}

// serve takes in what the host says until the context ends or the lease lapses, and returns why it ended.
func (h *hostSession) serve(ctx context.Context, incoming <-chan *umbrav1.SessionRequest) error {
	tick := h.server.Lease / silentTicksMax
	silence := h.server.Clock.NewTicker(tick)
	defer silence.Stop()
	silent := 0
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.server.stopping:
			return errStopping
		case request := <-incoming:
			silent = 0
			silence.Reset(tick)
			if err := h.take(ctx, request); err != nil {
				return err
			}
		case <-silence.C:
			if silent++; silent >= silentTicksMax {
				return fmt.Errorf("the host has said nothing for %v", h.server.Lease)
			}
		}
	}
}

// send hands out assignments and questions until the context ends. It alone sends.
func (h *hostSession) send(ctx context.Context, stream umbrav1.HostSessionService_SessionServer) error {
	welcome := &umbrav1.SessionWelcome{
		HeartbeatInterval: durationpb.New(h.server.Lease / 3), Lease: durationpb.New(h.server.Lease),
		ProtocolVersion: h.protocol,
	}
	if err := stream.Send(&umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Welcome{Welcome: welcome}}); err != nil {
		return err
	}
	assigned := newAssigned(h.host)
	for {
		for {
			set := assigned.next(h.server.Records.ByHost(h.host), h.server.peer)
			if set == nil {
				break
			}
			if err := stream.Send(&umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Assignments{Assignments: set}}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.wake:
		case query := <-h.queries:
			if err := stream.Send(&umbrav1.SessionResponse{Message: &umbrav1.SessionResponse_Query{Query: query}}); err != nil {
				return err
			}
		}
	}
}

// receive passes on what the host says, levelled, until the stream or the context ends.
func receive(ctx context.Context, stream umbrav1.HostSessionService_SessionServer, incoming chan<- *umbrav1.SessionRequest) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return errors.New("the host has ended the session")
		}
		if err != nil {
			return breach{err}
		}
		level(request)
		select {
		case incoming <- request:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
