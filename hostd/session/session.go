// Package session keeps hostd in touch with the control plane: it dials, takes the set of assignments in, keeps it
// across restarts, hands it to the roles, and sends what they report. When the control plane is away the roles
// go on with what was last assigned, and what they report waits, the latest for each pair and role.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/journal"
	"github.com/umbra-dr/umbra/pkg/clock"
)

// The versions of the session protocol that are spoken here. Whoever raises the newest goes on to speak the one before.
const (
	protocolOldest = 1
	protocolNewest = 1
)

const (
	redialFirst = 200 * time.Millisecond
	redialMax   = 5 * time.Second
	// settled is how long a session must have lasted for the next dial to be a quick one again. Without it two hosts
	// with one name, or a session that fails at its first message, would dial without pause.
	settled = 10 * time.Second
	// askedToWaitMax bounds what a control plane can ask for before the next dial.
	askedToWaitMax        = time.Minute
	welcomeTimeout        = 20 * time.Second
	inventoryEveryDefault = time.Minute
	heartbeatDefault      = 5 * time.Second
)

// Role carries out the assignments of one role.
type Role interface {
	// Assign gives the complete set of the role's assignments and returns at once. live is false for the set that was
	// kept from an earlier life: then the control plane may have decided otherwise meanwhile. The assignments are not
	// to be changed.
	Assign(set []*umbrav1.Assignment, live bool)
}

// Answerer answers the control plane's questions about a pair.
type Answerer interface {
	// RecoveryPoints are the pair's complete points, newest first.
	RecoveryPoints(ctx context.Context, pair string) ([]*umbrav1.RecoveryPoint, error)
	// Held completes what is held of a pair that this host is the shadow host of, as far as it is known here.
	Held(ctx context.Context, held *umbrav1.Held)
	// Diagnostics are the pair's files of a support bundle.
	Diagnostics(ctx context.Context, pair string) ([]*umbrav1.DiagnosticsFile, error)
}

// Config is what a Session works with.
type Config struct {
	Host    string
	Conn    grpc.ClientConnInterface // to the control plane
	Journal *journal.Journal
	Clock   clock.Clock
	Log     *slog.Logger
	// Main and Shadow carry out the assignments.
	Main, Shadow Role
	Answerer     Answerer
	// Inventory tells what the host has; it is asked at the beginning of each session and every InventoryEvery. It
	// ends with its context.
	Inventory      func(context.Context) (*umbrav1.Host, error)
	InventoryEvery time.Duration
}

// Session is made with New.
type Session struct {
	Config
	instance string
	outbox   *Outbox
	assigned *assigned
	welcomed atomic.Bool
}

// New makes a session, and Run works it.
func New(cfg Config, outbox *Outbox) *Session {
	if cfg.InventoryEvery <= 0 {
		cfg.InventoryEvery = inventoryEveryDefault
	}
	return &Session{
		Config: cfg, instance: uuid.NewString(), outbox: outbox,
		assigned: newAssigned(cfg.Journal, cfg.Log),
	}
}

// Run hands the kept assignments to the roles, then keeps a session open until the context ends.
func (s *Session) Run(ctx context.Context) error {
	if err := s.assigned.load(); err != nil {
		return err
	}
	s.assign(false)
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = redialFirst, redialMax
	for ctx.Err() == nil {
		began := s.Clock.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if s.Clock.Now().Sub(began) >= settled {
			wait.Reset()
		}
		delay := max(wait.NextBackOff(), min(askedToWait(err), askedToWaitMax))
		s.Log.Warn("no session with the control plane, replication goes on without; dialling again", "error", err, "in", delay)
		if s.Clock.Wait(ctx, delay) != nil {
			break
		}
	}
	return nil
}

// askedToWait is how long a control plane wants the next dial to wait that this host dials too often. 0: it is not that.
func askedToWait(err error) time.Duration {
	if status.Code(err) != codes.ResourceExhausted { // another control plane may take the host at once
		return 0
	}
	for _, detail := range status.Convert(err).Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			return retry.GetRetryDelay().AsDuration()
		}
	}
	return 0
}

// Connected tells whether there is a session with a control plane now.
func (s *Session) Connected() bool { return s.welcomed.Load() }

func (s *Session) assign(live bool) {
	mains, shadows := s.assigned.byRole()
	s.outbox.keep(mains, shadows, s.assigned.answers())
	s.Main.Assign(mains, live)
	s.Shadow.Assign(shadows, live)
}

// once opens a session and works it until it ends, and returns why. All that it started has ended then.
func (s *Session) once(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := umbrav1.NewHostSessionServiceClient(s.Conn).Session(ctx)
	if err != nil {
		return fmt.Errorf("dialling the control plane: %w", err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel(nil)
	welcome, err := s.greet(ctx, stream, cancel)
	if err != nil {
		return err
	}
	s.Log.Info("session with the control plane", "lease", welcome.GetLease().AsDuration())
	s.welcomed.Store(true)
	defer s.welcomed.Store(false)
	s.outbox.resendAll()
	s.assigned.expectComplete()
	talk := newTalk(s, stream)
	work.Go(func() { cancel(talk.receive(ctx)) })
	work.Go(func() { talk.takeInventories(ctx) })
	heartbeat := welcome.GetHeartbeatInterval().AsDuration()
	if heartbeat <= 0 {
		heartbeat = heartbeatDefault
	}
	if err := talk.send(ctx, heartbeat); !errors.Is(err, io.EOF) {
		cancel(err) // EOF says only that the stream is over; receive gets to know why
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// greet says hello and waits for the welcome, for a limited time.
func (s *Session) greet(ctx context.Context, stream umbrav1.HostSessionService_SessionClient, giveUp context.CancelCauseFunc) (*umbrav1.SessionWelcome, error) {
	var patience sync.WaitGroup
	defer patience.Wait()
	waiting, welcomed := context.WithCancel(ctx)
	defer welcomed()
	patience.Go(func() {
		if s.Clock.Wait(waiting, welcomeTimeout) == nil {
			giveUp(fmt.Errorf("the control plane has sent no welcome within %v", welcomeTimeout))
		}
	})
	hello := &umbrav1.SessionHello{Host: s.Host, Instance: s.instance, ProtocolVersion: protocolNewest}
	err := stream.Send(&umbrav1.SessionRequest{Message: &umbrav1.SessionRequest_Hello{Hello: hello}})
	if err != nil && !errors.Is(err, io.EOF) { // EOF says only that the stream is over; receiving tells why
		return nil, fmt.Errorf("saying hello to the control plane: %w", err)
	}
	first, err := stream.Recv()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("waiting for the control plane's welcome: %w", err)
	case first.GetWelcome() == nil:
		return nil, errors.New("the control plane's first message is not a welcome")
	}
	if spoken := max(first.GetWelcome().GetProtocolVersion(), 1); spoken < protocolOldest || spoken > protocolNewest {
		return nil, fmt.Errorf("the control plane speaks session protocol %d, this hostd only %d to %d: upgrade the control plane first", spoken, protocolOldest, protocolNewest)
	}
	return first.GetWelcome(), nil
}
