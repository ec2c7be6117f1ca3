package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/hostd/journal"
)

// ownLedger makes the ledger one of the assigned pair. What it holds of an earlier pair of the same id, which was removed without this host's
// knowledge, is cleared.
func (w *worker) ownLedger(ctx context.Context, a *umbrav1.Assignment) error {
	earlier := w.ledger.record
	uid := cmp.Or(a.GetDrPairUid(), earlier.UID)
	if !journal.OtherPair(earlier.UID, uid) {
		return w.ledger.update(func(r *record) { r.UID = uid })
	}
	w.log.Warn("what is left of an earlier pair of this id is cleared", "earlier_uid", earlier.UID, "uid", uid, "server", earlier.Server)
	next := record{UID: uid}
	if earlier.ServerUUID == "" || earlier.ServerUUID == a.GetMain().GetServerUuid() {
		next = w.inherited(earlier, uid)
	} else if err := w.leaveServer(ctx, earlier); err != nil {
		return fmt.Errorf("leaving the server of an earlier pair of this id: %w", err)
	}
	if err := w.ledger.update(func(r *record) { *r = next }); err != nil {
		return err
	}
	w.hasPoint = false
	return nil
}

// inherited is what a new pair of the same server has to know: what was done to its definition, to be undone when its role says so. Checkpoints
// count for nothing, and a server that fencing has shut down stays off, as it would after a release.
func (w *worker) inherited(earlier record, uid string) record {
	next := record{
		UID: uid, Server: earlier.Server, ServerUUID: earlier.ServerUUID, LinksDown: earlier.LinksDown,
		AutostartTaken: earlier.AutostartTaken, AutostartWas: earlier.AutostartWas, AutostartBoot: earlier.AutostartBoot,
	}
	if earlier.ShutDown {
		next.AutostartBoot = w.cfg.BootID
	}
	return next
}

// leaveServer ends what an earlier pair does to a server that is not this pair's. One that was fenced stays so: whether its shadow has
// become the primary server is not known here.
func (w *worker) leaveServer(ctx context.Context, earlier record) error {
	var server hypervisor.Server
	err := w.call(ctx, "looking at server "+earlier.Server, func(ctx context.Context) (err error) {
		server, err = w.cfg.Source.Server(ctx, earlier.Server)
		return err
	})
	if errors.Is(err, hypervisor.ErrNotFound) || err == nil && server.UUID != earlier.ServerUUID {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.endBackup(ctx, server.Name, endMax); err != nil {
		return err
	}
	if earlier.AutostartWas && !earlier.ShutDown && !earlier.LinksDown {
		err := w.call(ctx, "restoring autostart", func(ctx context.Context) error {
			return w.cfg.Source.SetAutostart(ctx, server.Name, true)
		})
		if err != nil {
			return err
		}
	}
	if err := os.RemoveAll(w.runDir()); err != nil {
		return fmt.Errorf("removing the folder for backup jobs: %w", err)
	}
	err = w.deleteCheckpoints(ctx, server.Name, "")
	if errors.Is(err, hypervisor.ErrNotRunning) {
		w.log.Warn("checkpoints remain on a server that is off", "server", server.Name, "error", err)
		return nil
	}
	return err
}
