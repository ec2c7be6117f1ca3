// Package session serves the hosts: it accepts one session of each, hands out assignments that it derives from the
// pair records, takes reports in, and asks questions. It decides nothing: reports go to package observed, where the
// reconciler finds them.
//
// A host cannot hold anything up: what is sent to one that reads slowly is made when it is read for, so that changes
// coalesce; one that is silent, hangs, or has dialled again loses its older session at once.
package session

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/umbra-dr/umbra/controlplane/observed"
	"github.com/umbra-dr/umbra/controlplane/registry"
	"github.com/umbra-dr/umbra/controlplane/store"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/clock"
	"github.com/umbra-dr/umbra/pkg/feed"
)

// The versions of the session protocol that are spoken here. Whoever raises the newest goes on to speak the one before, and tells by
// hostSession.protocol which it is.
const (
	protocolOldest = 1
	protocolNewest = 1
)

const (
	// leaseDefault is the lease where the configuration names none.
	leaseDefault = 15 * time.Second
	// catchUpTimeout is how long a host waits for a control plane that is behind before it tries another one.
	catchUpTimeout = 5 * time.Second
)

// Records is the cached picture of the store. *store.Cache is one.
type Records interface {
	// Ready is closed when the picture is complete. No host is served before that: it would be told to forget all.
	Ready() <-chan struct{}
	// Reach waits until the picture holds everything up to that revision of the store.
	Reach(ctx context.Context, revision int64) error
	Get(id string) (store.Entry, bool)
	List() []store.Entry
	ByHost(host string) []store.Entry
	Feed() *feed.Feed[string]
}

// Registry orders the sessions of a host over all control planes. *registry.Registry is one.
type Registry interface {
	// Enter makes a session the host's only one and returns its number. end is called when it is not that any more.
	Enter(ctx context.Context, host string, end context.CancelCauseFunc) (number uint64, err error)
	// Leave says that the host has ended the session. It does not block.
	Leave(host string, number uint64)
}

// Config is what a Server works with.
type Config struct {
	Records  Records
	Observed *observed.Hosts
	// Registry knows which control plane has a host's session.
	Registry Registry
	// Elsewhere puts a question to a host that has its session with another control plane, the holder. Nil where there
	// is no other.
	Elsewhere func(ctx context.Context, holder, host string, query *umbrav1.HostQuery) (*umbrav1.QueryAnswer, error)
	Clock     clock.Clock
	Log       *slog.Logger
	// PeerHost tells which host the caller's certificate names. Nil where sessions are not authenticated.
	PeerHost func(context.Context) (string, error)
	// Least tells the least generation of a host's certificates that counts, for the hosts it has pairs with; they refuse
	// older ones. Nil where sessions are not authenticated.
	Least func(host string) uint64
	// KeepHost stores a host's inventory so that it is known after a restart. It is called at a slow beat.
	KeepHost func(ctx context.Context, id string, inventory *umbrav1.Host) error
	// Lease is how long a session may be silent; the host is asked to send something three times as often.
	Lease time.Duration
}

// Server implements umbrav1.HostSessionServiceServer. It is safe for concurrent use. It serves while Run runs.
type Server struct {
	umbrav1.UnimplementedHostSessionServiceServer
	Config
	stopping chan struct{}
	work     sync.WaitGroup // everything that sessions have started

	mu   sync.Mutex
	open bool
	live map[string]*hostSession
	// limits count the sessions that each host begins.
	limits map[string]*rate.Limiter
}

// New makes a server.
func New(cfg Config) *Server {
	if cfg.Lease <= 0 {
		cfg.Lease = leaseDefault
	}
	if cfg.Least == nil {
		cfg.Least = func(string) uint64 { return 0 }
	}
	return &Server{Config: cfg, stopping: make(chan struct{}), live: map[string]*hostSession{}, limits: map[string]*rate.Limiter{}}
}

var (
	errStopping = errors.New("the control plane is stopping")
	errNotOpen  = errors.New("the control plane is starting or stopping")
)

// Session serves one host until its stream ends, its lease lapses, or a newer session of it begins, here or with another
// control plane.
func (s *Server) Session(stream umbrav1.HostSessionService_SessionServer) error {
	if !s.begin() {
		return status.Error(codes.Unavailable, errNotOpen.Error())
	}
	defer s.work.Done()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	// Receiving ends with the stream, and so when this has returned.
	incoming := make(chan *umbrav1.SessionRequest)
	s.work.Go(func() { cancel(receive(ctx, stream, incoming)) })
	hello, err := s.hello(ctx, incoming)
	if err != nil {
		return err
	}
	if err := s.mayBegin(hello.GetHost()); err != nil {
		return err
	}
	session := newHostSession(s, hello.GetHost(), hello.GetProtocolVersion())
	if session.number, err = s.Registry.Enter(ctx, session.host, cancel); err != nil {
		return ended(err)
	}
	// What another control plane has told the host is not taken back.
	if err := s.catchUp(ctx, session.number); err != nil {
		s.Registry.Leave(session.host, session.number)
		return ended(err)
	}
	s.enter(session)
	defer s.leave(session)
	// Sending may hang on a host that does not read. That too ends with the stream.
	s.work.Go(func() { cancel(session.send(ctx, stream)) })
	log := s.Log.With("host", session.host)
	log.Info("host connected", "instance", hello.GetInstance())
	err = session.serve(ctx, incoming)
	log.Info("host disconnected", "cause", err)
	if !errors.Is(err, errStopping) {
		s.Registry.Leave(session.host, session.number)
	}
	return ended(err)
}

// catchUp waits until the records are known as they were when the session began, or later: sessions are numbered by the
// revisions of the store.
func (s *Server) catchUp(ctx context.Context, number uint64) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	return s.Records.Reach(ctx, int64(number))
}

// breach is why a session cannot go on with what the host sent: it cannot be read, is too long, or does not belong there.
// It holds the status that tells the host.
type breach struct{ error }

// ended is what a host is told of the end of its session. It dials again, whatever it is.
func ended(err error) error {
	var told breach
	if errors.As(err, &told) {
		return told.error
	}
	if errors.Is(err, registry.ErrReplaced) {
		return status.Error(codes.Aborted, err.Error())
	}
	return status.Error(codes.Unavailable, err.Error())
}

// hello waits for the first message and judges it.
func (s *Server) hello(ctx context.Context, incoming <-chan *umbrav1.SessionRequest) (*umbrav1.SessionHello, error) {
	patience := s.Clock.NewTicker(s.Lease)
	defer patience.Stop()
	var hello *umbrav1.SessionHello
	select {
	case first := <-incoming:
		hello = first.GetHello()
	case <-patience.C:
		return nil, status.Errorf(codes.DeadlineExceeded, "no hello within %v", s.Lease)
	case <-s.stopping:
		return nil, status.Error(codes.Unavailable, errStopping.Error())
	case <-ctx.Done():
		return nil, ended(context.Cause(ctx))
	}
	switch {
	case hello.GetHost() == "":
		return nil, status.Error(codes.InvalidArgument, "a session begins with a hello that names the host")
	case hello.GetProtocolVersion() < protocolOldest:
		return nil, status.Errorf(codes.FailedPrecondition, "this control plane speaks session protocols %d to %d, the host only up to %d: upgrade the host",
			protocolOldest, protocolNewest, hello.GetProtocolVersion())
	case s.PeerHost == nil:
		return hello, nil
	}
	peer, err := s.PeerHost(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	if peer != hello.GetHost() {
		return nil, status.Errorf(codes.PermissionDenied, "the certificate is for host %q, not %q", peer, hello.GetHost())
	}
	return hello, nil
}

func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open {
		s.work.Add(1)
	}
	return s.open
}

// enter makes the session the one that is asked and woken, unless a newer one is that already.
func (s *Server) enter(session *hostSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.live[session.host]; other == nil || other.number < session.number {
		s.live[session.host] = session
	}
}

func (s *Server) leave(session *hostSession) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[session.host] == session {
		delete(s.live, session.host)
	}
	close(session.done)
}

func (s *Server) session(host string) *hostSession {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[host]
}
