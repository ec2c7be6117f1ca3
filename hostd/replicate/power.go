package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// shutDown stops the server, and takes its power after grace. It returns when the server is off. It is journalled before:
// a server that is off without a record would not be started when its role returns.
func (w *worker) shutDown(ctx context.Context, name string, grace time.Duration) error {
	if err := w.ledger.update(func(r *record) { r.ShutDown, r.WentOff = true, false }); err != nil {
		return err
	}
	w.log.Info("shutting the server down", "server", name, "grace", grace)
	err := w.callWithin(ctx, grace+callMax, "shutting the server down", func(ctx context.Context) error {
		return w.cfg.Source.Shutdown(ctx, name, grace)
	})
	if err != nil {
		return err
	}
	server, err := w.server(ctx)
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	if err == nil && server.Power != hypervisor.PowerOff {
		return fmt.Errorf("server %s is %v after it was shut down", name, server.Power)
	}
	return w.ledger.update(func(r *record) { r.WentOff = true })
}

func (w *worker) start(ctx context.Context, server string) error {
	w.log.Info("starting the server", "server", server)
	return w.call(ctx, "starting the server", func(ctx context.Context) error { return w.cfg.Source.Start(ctx, server) })
}

// linksUp connects the network interfaces that fencing had disconnected.
func (w *worker) linksUp(ctx context.Context, server string) error {
	err := w.call(ctx, "connecting the server's network", func(ctx context.Context) error {
		return w.cfg.Source.SetLinks(ctx, server, true)
	})
	if err != nil {
		return err
	}
	return w.ledger.update(func(r *record) { r.LinksDown = false })
}
