package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// callMax bounds one call to the hypervisor that does no work on disks.
const callMax = 30 * time.Second

// checkpointPrefix begins the names of all checkpoints of a pair.
func checkpointPrefix(pair string) string { return "umbra-" + pair + "-" }

// checkpointName names a new checkpoint. A server has one worker and a job takes time, so no two have the same moment.
func checkpointName(pair string, epoch uint64, now time.Time) string {
	return fmt.Sprintf("%s%d-%d", checkpointPrefix(pair), epoch, now.UnixNano())
}

// ownCheckpoint tells whether the name is one that checkpointName makes for the pair.
func ownCheckpoint(pair, name string) bool {
	rest, found := strings.CutPrefix(name, checkpointPrefix(pair))
	if !found {
		return false
	}
	epoch, at, found := strings.Cut(rest, "-")
	return found && digits(epoch) && digits(at)
}

func digits(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// checkpoints lists the pair's checkpoints on the server, oldest first.
func (w *worker) checkpoints(ctx context.Context, server string) ([]string, error) {
	ctx, stop := context.WithTimeout(ctx, callMax)
	defer stop()
	names, err := w.cfg.Source.Checkpoints(ctx, server)
	if err != nil {
		return nil, fmt.Errorf("listing the checkpoints of server %s: %w", server, err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !ownCheckpoint(w.pair, n) }), nil
}

// deleteCheckpoints deletes the pair's checkpoints, except the one to keep. A newer one than that may go, too: what it
// knows is merged into the one before it.
func (w *worker) deleteCheckpoints(ctx context.Context, server, keep string) error {
	names, err := w.checkpoints(ctx, server)
	if errors.Is(err, hypervisor.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == keep {
			continue
		}
		if err := w.deleteCheckpoint(ctx, server, name); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) deleteCheckpoint(ctx context.Context, server, name string) error {
	ctx, stop := context.WithTimeout(ctx, callMax)
	defer stop()
	if err := w.cfg.Source.DeleteCheckpoint(ctx, server, name); err != nil {
		return fmt.Errorf("deleting checkpoint %s: %w", name, err)
	}
	return nil
}

// tidyCheckpoints deletes checkpoints that nobody needs any more. That it cannot is no reason to stop: the next cycle tries again.
func (w *worker) tidyCheckpoints(ctx context.Context, server, keep string) {
	if err := w.deleteCheckpoints(ctx, server, keep); err != nil && ctx.Err() == nil {
		w.log.Warn("old checkpoints remain", "server", server, "error", err)
	}
}
