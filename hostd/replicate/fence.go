package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/trace"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

const (
	// disconnectMax bounds the disconnection of the server's network, for which a failover waits. After that its power is taken.
	disconnectMax = 3 * time.Second
	// shutdownGrace is how long a disconnected server may take to shut down before its power is taken. No failover waits for it.
	shutdownGrace = 30 * time.Second
	// fenceEvery is how often a fenced server is looked at: somebody may start it by hand.
	fenceEvery = 3 * time.Second
	// fenceEndMax bounds the end of a backup job that an earlier life of the daemon left.
	fenceEndMax = 3 * time.Second
	// fenceRetry is how soon a fence that failed is tried again.
	fenceRetry = time.Second
)

// fence keeps the server of an epoch that is over from doing harm, until ctx ends. Replication has stopped before it is called.
func (w *worker) fence(ctx context.Context) {
	f := &fencing{worker: w}
	ctx, f.span = w.stepSpan(ctx, "FENCE_MAIN")
	for ctx.Err() == nil {
		w.pause(ctx, f.round(ctx))
	}
	tracing.End(f.span, context.Cause(ctx)) // nothing, if the fence has held
}

// fencing applies on_main_return, again and again.
type fencing struct {
	worker *worker
	// linksDown says that the links were set down while the server's power was linksPower: of a server that is off they are
	// down in its definition only, and of one that has been started since, somebody may have set them up again.
	linksDown  bool
	linksPower hypervisor.PowerState
	// shutDown says that the server, harmless already, is still to be shut down.
	shutDown bool
	// trouble is what keeps the disconnected server from being shut down, for a person.
	trouble  string
	jobEnded bool
	// span is that of the fence, until it holds for the first time.
	span trace.Span
}

const (
	fencedShutDown = "The main server was shut down."
	fencedGoingOff = "The main server's network is disconnected; it is being shut down."
)

// round makes the server harmless and reports it, and only then does what takes time. It returns when the next is due.
func (f *fencing) round(ctx context.Context) time.Duration {
	w := f.worker
	message, err := f.restrain(ctx)
	if err != nil {
		f.failed(ctx, err)
		return fenceRetry
	}
	w.reportFenced(message)
	f.span.SetAttributes(tracing.KeyMessage.String(message))
	f.span.End()
	f.jobEnded = f.jobEnded || w.endLeftJob(ctx, fenceEndMax)
	if !f.shutDown {
		return fenceEvery
	}
	err = w.shutDown(ctx, w.desired.current().GetMain().GetServer(), shutdownGrace)
	switch {
	case err == nil:
		f.trouble = ""
		w.reportFenced(fencedShutDown)
		return fenceEvery
	case ctx.Err() == nil:
		w.log.Warn("the disconnected server is not shut down yet", "error", err)
		f.trouble = fmt.Sprintf("The main server's network is disconnected; it is not shut down yet: %v.", err)
		w.reportFenced(f.trouble)
	}
	return fenceRetry
}

func (w *worker) reportFenced(message string) {
	w.status.change(func(v *view) {
		v.phase, v.failure, v.fenceMessage = umbrav1.MainPhase_MAIN_PHASE_FENCED, nil, message
	})
}

func (f *fencing) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	w := f.worker
	w.log.Warn("the server is not fenced yet", "error", err)
	w.status.change(func(v *view) {
		v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_ERROR, failureOf(err, w.cfg.Clock.Now())
	})
}

// restrain makes the server harmless, as the policy asks and as fast as can be, and says for a person what it is now.
func (f *fencing) restrain(ctx context.Context) (string, error) {
	w := f.worker
	f.shutDown = false
	server, err := w.server(ctx)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return "The main server is not defined on its host.", nil
	}
	if err != nil {
		return "", err
	}
	message, err := f.enforce(ctx, server)
	// Whatever came of it, the server must not come back with its host.
	return message, errors.Join(err, w.takeAutostart(ctx, server))
}

// enforce applies the policy to a server that is there.
func (f *fencing) enforce(ctx context.Context, server hypervisor.Server) (string, error) {
	w := f.worker
	policy := w.desired.current().GetMain().GetPolicy().GetOnMainReturn()
	leave := policy == umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING
	switch {
	case server.Power == hypervisor.PowerOff:
		return f.enforceOff(ctx, server, leave)
	case leave:
		return "The main server is running, and is left so.", nil
	}
	err := f.disconnect(ctx, server)
	switch {
	case policy == umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK:
		return "The main server is running without a network.", err
	case err != nil && ctx.Err() != nil:
		return "", err
	case err != nil:
		w.log.Warn("the server cannot be disconnected, its power is taken", "server", server.Name, "error", err)
		return fencedShutDown, w.shutDown(ctx, server.Name, 0)
	}
	f.shutDown = true
	return cmp.Or(f.trouble, fencedGoingOff), nil
}

// enforceOff sees to it that a server that is off comes back disconnected, should somebody start it. It is harmless as it is.
func (f *fencing) enforceOff(ctx context.Context, server hypervisor.Server, leave bool) (string, error) {
	w := f.worker
	if !leave {
		if err := f.disconnect(ctx, server); err != nil && ctx.Err() == nil {
			w.log.Warn("the server that is off would come back connected", "server", server.Name, "error", err)
		}
	}
	if !w.ledger.record.ShutDown {
		return "The main server is off.", nil
	}
	return fencedShutDown, w.ledger.update(func(r *record) { r.WentOff = true })
}

// disconnect sets the links down, now and in the definition. It is journalled before, so that it can be undone.
func (f *fencing) disconnect(ctx context.Context, server hypervisor.Server) error {
	if f.linksDown && f.linksPower == server.Power {
		return nil
	}
	w := f.worker
	if err := w.ledger.update(func(r *record) { r.LinksDown = true }); err != nil {
		return err
	}
	w.log.Info("disconnecting the server's network, its epoch is over", "server", server.Name)
	err := w.callWithin(ctx, disconnectMax, "disconnecting the server's network", func(ctx context.Context) error {
		return w.cfg.Source.SetLinks(ctx, server.Name, false)
	})
	f.linksDown, f.linksPower = err == nil, server.Power
	return err
}
