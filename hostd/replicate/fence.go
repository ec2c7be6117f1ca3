package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const (
	// shutdownGrace is how long a fenced server may take to shut down before its power is taken. A failover waits for it.
	shutdownGrace = 5 * time.Second
	// fenceEvery is how often a fenced server is looked at: somebody may start it by hand.
	fenceEvery = 3 * time.Second
	// fenceEndMax bounds the end of a backup job before the fence. Without it the fence works all the same.
	fenceEndMax = 3 * time.Second
	// fenceRetry is how soon a fence that failed is tried again.
	fenceRetry = time.Second
)

// fence keeps the server of an epoch that is over from doing harm, until ctx ends. Replication has stopped before it is called.
func (w *worker) fence(ctx context.Context) {
	server := w.desired.current().GetMain().GetServer()
	if err := w.endBackup(ctx, server, fenceEndMax); err != nil {
		w.log.Warn("a backup job remains on the fenced server", "server", server, "error", err)
	}
	f := &fencing{worker: w}
	for ctx.Err() == nil {
		message, err := f.apply(ctx)
		wait := fenceEvery
		switch {
		case err != nil && ctx.Err() == nil:
			wait = fenceRetry
			w.log.Warn("the server is not fenced yet", "server", server, "error", err)
			w.status.change(func(v *view) {
				v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_ERROR, failureOf(err, w.cfg.Clock.Now())
			})
		case err == nil:
			w.status.change(func(v *view) {
				v.phase, v.failure, v.fenceMessage = umbrav1.MainPhase_MAIN_PHASE_FENCED, nil, message
			})
		}
		w.pause(ctx, wait)
	}
}

// fencing applies on_main_return, again and again.
type fencing struct {
	worker *worker
	// disconnected says that the links were set down since the server was last seen not running.
	disconnected bool
}

// apply makes the server as the policy asks and says for a person what it is now.
func (f *fencing) apply(ctx context.Context) (string, error) {
	w := f.worker
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
	if server.Power == hypervisor.PowerOff {
		f.disconnected = false
		if w.ledger.record.ShutDown {
			return "The main server was shut down.", nil
		}
		return "The main server is off.", nil
	}
	switch w.desired.current().GetMain().GetPolicy().GetOnMainReturn() {
	case umbrav1.OnMainReturn_ON_MAIN_RETURN_LEAVE_RUNNING:
		return "The main server is running, and is left so.", nil
	case umbrav1.OnMainReturn_ON_MAIN_RETURN_DISCONNECT_NETWORK:
		return "The main server is running without a network.", f.disconnect(ctx, server)
	default:
		return "The main server was shut down.", f.shutDown(ctx, server)
	}
}

// shutDown journals before it acts: a server that is off without a record would not be started when its role returns.
func (f *fencing) shutDown(ctx context.Context, server hypervisor.Server) error {
	w := f.worker
	if err := w.ledger.update(func(r *record) { r.ShutDown = true }); err != nil {
		return err
	}
	w.log.Info("shutting the server down, its epoch is over", "server", server.Name)
	err := w.call(ctx, "shutting the server down", func(ctx context.Context) error {
		return w.cfg.Source.Shutdown(ctx, server.Name, shutdownGrace)
	})
	if err != nil {
		return err
	}
	if server, err = w.server(ctx); err != nil {
		return err
	}
	if server.Power != hypervisor.PowerOff {
		return fmt.Errorf("server %s is %v after it was shut down", server.Name, server.Power)
	}
	return nil
}

func (f *fencing) disconnect(ctx context.Context, server hypervisor.Server) error {
	if f.disconnected {
		return nil
	}
	w := f.worker
	if err := w.ledger.update(func(r *record) { r.LinksDown = true }); err != nil {
		return err
	}
	w.log.Info("disconnecting the server's network, its epoch is over", "server", server.Name)
	err := w.call(ctx, "disconnecting the server's network", func(ctx context.Context) error {
		return w.cfg.Source.SetLinks(ctx, server.Name, false)
	})
	f.disconnected = err == nil
	return err
}
