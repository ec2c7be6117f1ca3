package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/recoverystore"
	"github.com/umbra-dr/umbra/pkg/transport"
)

// helloMax is how long a caller may take to say hello.
const helloMax = time.Minute

var (
	errReplaced = errors.New("a newer stream of the pair took this one's place")
	errLeft     = errors.New("the stream has ended")
	errDamage   = errors.New("stored data was found damaged; a new stream repairs it")
	errNoHello  = errors.New("no hello came")
)

// protocolError is for a main side that does not keep to the protocol.
func protocolError(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, "replication protocol: "+format, args...)
}

// stream is one admitted stream. It is driven by one goroutine, that of its handler; another one may end it.
type stream struct {
	p     *pair
	ts    *transport.ShadowStream
	end   context.CancelCauseFunc // ends the context of the handler, with the reason
	epoch uint64
	disks []disk
	store *recoverystore.Store
	job   *umbrav1.BeginJob // between BeginJob and PointStored

	damage []recoverystore.DamagedRange // what it began to repair and has not yet, at most damageListMax ranges
}

// Handle returns what serves the streams. peerHost returns the id of the caller's host, as its certificate has it; nil accepts every
// caller, for tests.
func (r *Replica) Handle(peerHost func(ctx context.Context) string) transport.Handler {
	return func(ts *transport.ShadowStream) error {
		ctx, end := context.WithCancelCause(ts.Context())
		defer end(errLeft)
		err := r.serve(ctx, end, ts, peerHost)
		var refused *refusal
		if errors.As(err, &refused) {
			return ts.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_Refused{
				Refused: &umbrav1.ReplicationRefused{Failure: refused.failure},
			}})
		}
		if errors.Is(err, errReplaced) || errors.Is(err, errDamage) || errors.Is(err, ErrClosed) {
			return status.Error(codes.Unavailable, err.Error())
		}
		return err
	}
}

func (r *Replica) serve(ctx context.Context, end context.CancelCauseFunc, ts *transport.ShadowStream, peerHost func(context.Context) string) error {
	hello, err := receiveHello(ctx, ts)
	if err != nil {
		return err
	}
	disks, err := disksOf(hello)
	if err != nil {
		return err
	}
	p, err := r.known(hello.GetDrPair())
	if errors.Is(err, ErrNoPair) {
		return &refusal{notHere(r.cfg.Clock.Now(), hello.GetDrPair())}
	}
	if err != nil {
		return err
	}
	st := &stream{p: p, ts: ts, end: end, epoch: hello.GetEpoch(), disks: disks}
	defer p.leave(st)
	welcome, err := p.admit(ctx, st, hello, peerHost)
	if err != nil {
		return err
	}
	p.log.Info("replication stream begins")
	err = ts.Send(&umbrav1.ShadowMessage{Message: &umbrav1.ShadowMessage_Welcome{Welcome: welcome}})
	for err == nil {
		err = st.next(ctx)
	}
	p.log.Info("replication stream ends", "stream_epoch", st.epoch, "reason", err)
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func receiveHello(ctx context.Context, ts *transport.ShadowStream) (*umbrav1.ReplicationHello, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, helloMax, errNoHello)
	defer cancel()
	got, err := ts.RecvContext(ctx)
	if errors.Is(err, errNoHello) {
		return nil, status.Error(codes.DeadlineExceeded, err.Error())
	}
	if err != nil {
		return nil, fmt.Errorf("waiting for hello: %w", err)
	}
	hello := got.Control.GetHello()
	if hello == nil {
		return nil, protocolError("the first message is not hello")
	}
	return hello, nil
}

// leave ends what the stream still holds of the pair.
func (p *pair) leave(st *stream) {
	p.gate.await()
	defer p.gate.unlock()
	if p.current == st {
		p.cut(errLeft)
	}
}

// next takes the next thing that the main side sent.
func (st *stream) next(ctx context.Context) error {
	got, err := st.ts.RecvContext(ctx)
	switch {
	case err != nil:
		return err
	case got.Clusters != nil:
		defer got.Clusters.Release()
		return st.clusters(ctx, got.Clusters)
	case got.Zeros != nil:
		return st.zeros(ctx, got.Zeros)
	}
	switch m := got.Control.GetMessage().(type) {
	case *umbrav1.MainMessage_BeginJob:
		return st.beginJob(ctx, m.BeginJob)
	case *umbrav1.MainMessage_ChecksumsRequest:
		return st.checksums(ctx, m.ChecksumsRequest)
	case *umbrav1.MainMessage_CoverageReached:
		return st.coverageReached(ctx, m.CoverageReached.GetCoverage())
	case *umbrav1.MainMessage_CompletePoint:
		return st.completePoint(ctx)
	case nil: // nothing is passed over where the data of a point may be
		return status.Error(codes.Unimplemented, "replication protocol: a message of a kind that the shadow host does not know: upgrade the shadow host")
	default:
		return protocolError("message %T is not expected here", m)
	}
}
