package replicate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// running tells whether there is a QEMU with which a backup job can be begun.
func running(p hypervisor.PowerState) bool {
	return p == hypervisor.PowerRunning || p == hypervisor.PowerPaused
}

// server looks at the assigned server. One of another UUID is ErrNotFound.
func (w *worker) server(ctx context.Context) (hypervisor.Server, error) {
	ctx, stop := context.WithTimeout(ctx, callMax)
	defer stop()
	main := w.desired.current().GetMain()
	server, err := w.cfg.Source.Server(ctx, main.GetServer())
	if err == nil && main.GetServerUuid() != "" && server.UUID != main.GetServerUuid() {
		err = fmt.Errorf("it has UUID %s, expected %s: %w", server.UUID, main.GetServerUuid(), hypervisor.ErrNotFound)
	}
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		w.status.change(func(v *view) { v.power = hypervisor.PowerAbsent })
	case err == nil:
		w.status.change(func(v *view) { v.power = server.Power })
	}
	if err != nil {
		return hypervisor.Server{}, fmt.Errorf("looking at server %s: %w", main.GetServer(), err)
	}
	return server, nil
}

// prepare brings the server to where it can be replicated: what fencing did is undone, autostart is Umbra's, and checkpoints of before a Restart
// Replication are gone. Each part is done once; what was done is in the journal.
func (w *worker) prepare(ctx context.Context) (hypervisor.Server, error) {
	server, err := w.server(ctx)
	if err != nil {
		return server, err
	}
	if err := w.ledger.update(func(r *record) { r.Server, r.ServerUUID = server.Name, server.UUID }); err != nil {
		return server, err
	}
	if err := w.takeAutostart(ctx, server); err != nil {
		return server, err
	}
	if err := w.undoFence(ctx, server); err != nil {
		return server, err
	}
	if err := w.standInForAutostart(ctx, server); err != nil {
		return server, err
	}
	if server, err = w.server(ctx); err != nil {
		return server, err
	}
	if !running(server.Power) {
		return server, errServerOff
	}
	return server, w.dropOldCheckpoints(ctx, server)
}

// takeAutostart takes the server off the hypervisor's autostart: after a host failure it may run only once the control plane has
// confirmed that it is still the main server.
func (w *worker) takeAutostart(ctx context.Context, server hypervisor.Server) error {
	if w.ledger.record.AutostartTaken && !server.Autostart {
		return nil
	}
	err := w.ledger.update(func(r *record) {
		if !r.AutostartTaken {
			r.AutostartBoot = w.cfg.BootID
		}
		r.AutostartTaken, r.AutostartWas = true, server.Autostart
	})
	if err != nil || !server.Autostart {
		return err
	}
	return w.call(ctx, "taking the server off autostart", func(ctx context.Context) error {
		return w.cfg.Source.SetAutostart(ctx, server.Name, false)
	})
}

// standInForAutostart starts a server that the hypervisor would have started with the host: once for each boot of the host, so that a server that
// was shut down since stays off, and never before the control plane has confirmed the role.
func (w *worker) standInForAutostart(ctx context.Context, server hypervisor.Server) error {
	if !w.ledger.record.AutostartWas || w.ledger.record.AutostartBoot == w.cfg.BootID {
		return nil
	}
	if !running(server.Power) {
		if !w.confirmed() {
			return fmt.Errorf("server %s is to be started with the host: %w", server.Name, errNotConfirmed)
		}
		if err := w.start(ctx, server.Name); err != nil {
			return err
		}
	}
	return w.ledger.update(func(r *record) { r.AutostartBoot = w.cfg.BootID })
}

// undoFence undoes what fencing did, if it did anything.
func (w *worker) undoFence(ctx context.Context, server hypervisor.Server) error {
	fenced := w.ledger.record
	if !fenced.ShutDown && !fenced.LinksDown {
		return nil
	}
	if !w.confirmed() {
		return fmt.Errorf("server %s was fenced: %w", server.Name, errNotConfirmed)
	}
	if fenced.ShutDown && !fenced.WentOff && running(server.Power) {
		if err := w.shutDown(ctx, server.Name, shutdownGrace); err != nil {
			return err
		}
	}
	if fenced.LinksDown {
		if err := w.linksUp(ctx, server.Name); err != nil {
			return err
		}
	}
	if fenced.ShutDown {
		if err := w.start(ctx, server.Name); err != nil {
			return err
		}
	}
	return w.ledger.update(func(r *record) { r.ShutDown, r.WentOff, r.AutostartBoot = false, false, w.cfg.BootID })
}

// dropOldCheckpoints deletes all checkpoints when there was a Restart Replication, or when it is not known whose they are.
func (w *worker) dropOldCheckpoints(ctx context.Context, server hypervisor.Server) error {
	assigned := w.desired.current().GetMain().GetResyncGeneration()
	if w.ledger.record.CheckpointsKept && w.ledger.record.ResyncGeneration == assigned {
		return nil
	}
	if err := w.endBackup(ctx, server.Name, endMax); err != nil {
		return err
	}
	if err := w.deleteCheckpoints(ctx, server.Name, ""); err != nil {
		return err
	}
	return w.ledger.update(func(r *record) {
		r.CheckpointsKept, r.ResyncGeneration, r.PointStored = true, assigned, false
	})
}

// call makes one call to the hypervisor that takes no time by itself.
func (w *worker) call(ctx context.Context, what string, f func(context.Context) error) error {
	return w.callWithin(ctx, callMax, what, f)
}

// callWithin makes one bounded call to the hypervisor.
func (w *worker) callWithin(ctx context.Context, most time.Duration, what string, f func(context.Context) error) error {
	ctx, stop := context.WithTimeout(ctx, most)
	defer stop()
	if err := f(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
