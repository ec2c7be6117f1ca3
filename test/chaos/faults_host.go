package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// hostFaults take a QEMU's or a whole machine's power.
var hostFaults = []Fault{
	{
		Name: "kill-main-qemu", Does: "kill -9 of the main server's QEMU; its user starts it again later", Hits: "main server", Weight: 2,
		Operator: "SERVER_NOT_RUNNING, then RESYNCING: the bitmap is lost, so the disks are compared. Points stay usable.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			if !w.serverRuns(ctx, w.Main) {
				return nil, errNothingToHit
			}
			return nothing, w.Main.KillGuest(ctx, guest) // the cycle starts what must run
		},
	},
	{
		Name: "kill-shadow-qemu", Does: "kill -9 of the shadow server's QEMU; its user starts it again later", Hits: "shadow server", Weight: 2,
		ShadowServerMayFail: true,
		Operator:            "The power state OFF; while it is being verified, the operation fails with VERIFICATION_FAILED.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			if _, err := os.Stat(w.Shadow.Path("/run/libvirt/qemu/" + guest + ".pid")); err != nil {
				return nil, errNothingToHit
			}
			if err := w.Shadow.KillGuest(ctx, guest); err != nil && w.serverRuns(ctx, w.Shadow) {
				return nil, err // otherwise it was gone already, and perhaps its definition too
			}
			return nothing, nil
		},
	},
	{
		Name: "kill-main-host", Does: "all processes of the host at once, and its network; booted again later", Hits: "main host", Weight: 2,
		Operator: "REPLICATION_ERROR with MAIN_HOST_UNREACHABLE; a failover goes on without it. After its return: comparison, or the fence.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			return w.Main.Revive, w.Main.Kill(ctx)
		},
	},
	{
		Name: "kill-shadow-host", Does: "all processes of the host at once, and its network; booted again later", Hits: "shadow host", Weight: 2,
		ShadowServerMayFail: true,
		Operator:            "REPLICATION_ERROR with SHADOW_HOST_UNREACHABLE, ReadyForFailover false. An operation waits for it or fails, and can be asked for again.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			return w.Shadow.Revive, w.Shadow.Kill(ctx)
		},
	},
	{
		Name: "kill-everything", Does: "both hosts and the control plane at once; started again in any order", Hits: "all", Weight: 1,
		ShadowServerMayFail: true,
		Operator:            "Nothing answers; afterwards everything goes on from what was recorded.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			mends := []func(context.Context) error{w.ControlPlane.Start, w.Main.Revive, w.Shadow.Revive}
			w.now.dice().Shuffle(len(mends), func(i, j int) { mends[i], mends[j] = mends[j], mends[i] })
			for _, kill := range []func(context.Context) error{w.ControlPlane.Kill, w.Main.Kill, w.Shadow.Kill} {
				if err := kill(ctx); err != nil {
					return mendAll(mends...), err
				}
			}
			return mendAll(mends...), nil
		},
	},
}

// diskFaults need a file system of their own for the store.
var diskFaults = []Fault{
	{
		Name: "store-full", Does: "the last byte of the store's file system is taken, given back later", Hits: "shadow host", Weight: 2,
		ShadowServerMayFail: true,
		Operator:            "REPLICATION_PAUSED with NO_SPACE; points stay, failover works while its small files find room. Goes on by itself.",
		Inject: func(_ context.Context, w *world) (func(context.Context) error, error) {
			if w.unbounded {
				return nil, errNothingToHit
			}
			ballast := filepath.Join(w.storeDir(w.Shadow), "ballast")
			again := func(context.Context) error {
				if err := os.Remove(ballast); err != nil {
					return fmt.Errorf("giving the space back: %w", err)
				}
				return nil
			}
			return again, fill(ballast)
		},
	},
}

// storeDir is where a host keeps its stores: a file system of its own, outside the lab, so that it survives the host.
func (w *world) storeDir(h *lab.Host) string { return filepath.Join(w.cfg.Dir, h.Name+"-store") }
