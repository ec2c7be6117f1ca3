package chaos

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
)

// leakMax is how long something may remain that is on its way out.
const leakMax = 3 * time.Minute

// checkMainLeaks: the main host has no backup job, no socket, no scratch file, no more checkpoints than the one that
// the next point starts from and that of a cycle that was cut, and no other process than it needs. While the pair
// replicates, it is paused for that: on a
// busy machine one job may follow the other without a gap.
func checkMainLeaks(ctx context.Context, w *world) error {
	pair, err := w.pair(ctx)
	if err != nil {
		return err
	}
	look := func() error {
		return eventually(ctx, leakMax, func(ctx context.Context) error { return w.mainClean(ctx, pair.GetState()) })
	}
	if pair.GetState() != replicating {
		return look()
	}
	if err := w.pauseReplication(ctx, "look"); err != nil {
		return err
	}
	return errors.Join(look(), w.resumeReplication(ctx, "look"))
}

// mainClean tells what is left on the main host that the pair's state does not explain.
func (w *world) mainClean(ctx context.Context, state umbrav1.DRPairState) error {
	left, err := files(filepath.Join(w.Main.Dir, "run", "umbra"))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("files of a backup job are left: %v", left)
	}
	if w.serverRuns(ctx, w.Main) {
		job, err := w.Main.Virsh(ctx, "domjobinfo", guest)
		if err != nil {
			return err
		}
		if !strings.Contains(job, "None") {
			return fmt.Errorf("a job is left: %s", job)
		}
	}
	if err := w.checkpointsExplained(ctx, state); err != nil {
		return err
	}
	return w.processesExplained(ctx, w.Main)
}

func (w *world) checkpointsExplained(ctx context.Context, state umbrav1.DRPairState) error {
	checkpoints, err := w.checkpoints(ctx)
	if err != nil {
		return err
	}
	// A pause or a failover may have cut a cycle: its checkpoint goes with the next cycle, or with the end of the
	// protection, or if the server is off then, with its next protection. So there are never more than two.
	most := 2
	if state == none && w.serverRuns(ctx, w.Main) {
		most = 0
	}
	if len(checkpoints) > most {
		return fmt.Errorf("the pair is %v, and there are checkpoints: %v", state, checkpoints)
	}
	return nil
}

// checkShadowLeaks: the shadow host has the disks, views and servers that the pair's state explains.
func checkShadowLeaks(ctx context.Context, w *world) error {
	return eventually(ctx, leakMax, func(ctx context.Context) error {
		pair, err := w.pair(ctx)
		if err != nil {
			return err
		}
		overlays, err := files(filepath.Join(w.Shadow.Dir, "umbra", "servers"))
		if err != nil {
			return err
		}
		disks := len(guestSpec().DiskBytes)
		if w.booted != nil {
			disks = len(w.booted.GetDisks())
		}
		switch state := pair.GetState(); {
		case state == replicating && len(overlays) > 0:
			return fmt.Errorf("the pair replicates, and there are disks of servers: %v", overlays)
		case state == committed && len(overlays) != disks:
			return fmt.Errorf("the failover is committed, and there are disks besides its %d: %v", disks, overlays)
		case state == failedOver && len(overlays) > disksMax*w.attempts():
			return fmt.Errorf("there were %d attempts, and there are disks of more: %v", w.attempts(), overlays)
		}
		stores, err := filepath.Glob(filepath.Join(w.storeDir(w.Shadow), "pairs", "*"))
		if err != nil {
			return err
		}
		if pair == nil && len(stores) > 0 {
			return fmt.Errorf("the pair is gone, and its store is left: %v", stores)
		}
		return w.processesExplained(ctx, w.Shadow)
	})
}

// disksMax is how many disks the guest ever has: its own, and one that was added.
const disksMax = 3

// attempts is how often the pair's shadow server was asked for.
func (w *world) attempts() int {
	count := 0
	for _, r := range w.history.requests {
		for _, kind := range shadowKinds {
			if r.kind == kind {
				count++
			}
		}
	}
	return count
}

// processesExplained: there is one QEMU for each server that runs, and none besides.
func (w *world) processesExplained(ctx context.Context, h *lab.Host) error {
	out, err := h.Virsh(ctx, "list", "--name")
	if err != nil {
		return err
	}
	running := len(strings.Fields(out))
	// The first process of the machine sees all of its processes.
	found, err := h.Command(ctx, "sh", "-c", "cat /proc/[0-9]*/comm 2>/dev/null | grep -c qemu-system || true").Output()
	if err != nil {
		return fmt.Errorf("counting the processes of %s: %w", h.Name, err)
	}
	if count := strings.TrimSpace(string(found)); count != fmt.Sprint(running) {
		return fmt.Errorf("%s QEMUs run on %s for %d servers", count, h.Name, running)
	}
	return nil
}

// files are all files and sockets below a folder, which need not exist.
func files(dir string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("looking for what is left in %s: %w", dir, err)
	}
	return found, nil
}
