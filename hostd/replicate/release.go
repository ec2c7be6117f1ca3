package replicate

import (
	"context"
	"errors"
	"fmt"
	"os"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/tracing"
)

// release removes everything of the pair from this host, and stays until ctx ends. It may be repeated: the journal's record goes last.
func (w *worker) release(ctx context.Context) {
	retry := newRetry()
	for ctx.Err() == nil {
		traced, span := w.stepSpan(ctx, "STOP_REPLICATION")
		err := w.releaseOnce(traced)
		tracing.End(span, err)
		if err == nil {
			w.log.Info("the pair is released")
			w.status.change(func(v *view) { v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_RELEASED, nil })
			<-ctx.Done()
			return
		}
		if ctx.Err() != nil {
			return
		}
		w.log.Warn("the pair is not released yet", "error", err)
		w.status.change(func(v *view) {
			v.phase, v.failure = umbrav1.MainPhase_MAIN_PHASE_ERROR, failureOf(err, w.cfg.Clock.Now())
		})
		w.pause(ctx, retry.NextBackOff())
	}
}

func (w *worker) releaseOnce(ctx context.Context) error {
	server, err := w.server(ctx)
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		w.log.Info("the server is gone, nothing of it is left to release")
	case err != nil:
		return err
	default:
		if err := w.releaseServer(ctx, server); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(w.runDir()); err != nil {
		return fmt.Errorf("removing the folder for backup jobs: %w", err)
	}
	return w.ledger.remove()
}

// releaseServer gives the server back: as it was, except for its power, or as fencing has it.
func (w *worker) releaseServer(ctx context.Context, server hypervisor.Server) error {
	if err := w.endBackup(ctx, server.Name, endMax); err != nil {
		return err
	}
	giveBack := w.undoForGood
	if w.desired.current().GetMain().GetKeepFenced() {
		giveBack = w.keepFenced
	}
	if err := giveBack(ctx, server); err != nil {
		return err
	}
	err := w.deleteCheckpoints(ctx, server.Name, "")
	if errors.Is(err, hypervisor.ErrNotRunning) {
		// Waiting for somebody to start the former main server could take forever, and nothing but space in its images depends on it.
		w.log.Warn("checkpoints remain on a server that is off", "server", server.Name, "error", err)
		return nil
	}
	return err
}

// undoForGood makes the server as it was before it was protected, except for its power.
func (w *worker) undoForGood(ctx context.Context, server hypervisor.Server) error {
	if w.ledger.record.AutostartWas {
		err := w.call(ctx, "restoring autostart", func(ctx context.Context) error {
			return w.cfg.Source.SetAutostart(ctx, server.Name, true)
		})
		if err != nil {
			return err
		}
	}
	if w.ledger.record.LinksDown {
		return w.linksUp(ctx, server.Name)
	}
	return nil
}

// keepFenced leaves what fencing did, and ends what it had begun.
func (w *worker) keepFenced(ctx context.Context, server hypervisor.Server) error {
	if err := w.takeAutostart(ctx, server); err != nil {
		return err
	}
	if fenced := w.ledger.record; fenced.ShutDown && !fenced.WentOff && running(server.Power) {
		return w.shutDown(ctx, server.Name, shutdownGrace)
	}
	return nil
}
