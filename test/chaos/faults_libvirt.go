package chaos

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// libvirtFaults are what others do at libvirt behind Umbra's back: another backup tool, an administrator, the server's user.
var libvirtFaults = []Fault{
	{
		Name: "foreign-backup", Does: "another tool's backup job runs on the main server, and ends later", Hits: "main server", Weight: 1,
		Operator: "REPLICATION_ERROR with BACKUP_BUSY; the job is left alone. Points again when it has ended.",
		Inject:   beginForeignBackup,
	},
	{
		Name: "delete-checkpoint", Does: "an administrator deletes Umbra's checkpoints", Hits: "main server", Weight: 2,
		Operator: "RESYNCING: what changed is not known any more, the disks are compared.",
		Inject:   deleteCheckpoints(),
	},
	{
		Name: "forget-checkpoint", Does: "an administrator deletes the metadata of Umbra's checkpoints; the bitmaps stay", Hits: "main server", Weight: 1,
		Operator: "RESYNCING, as before.",
		Inject:   deleteCheckpoints("--metadata"),
	},
	{
		Name: "destroy-main-server", Does: "its user takes the main server's power, and starts it later", Hits: "main server", Weight: 2,
		Operator: "SERVER_NOT_RUNNING, then RESYNCING.",
		Inject:   byUser(func(w *world) *lab.Host { return w.Main }, "destroy"),
	},
	{
		Name: "reset-main-server", Does: "its user resets the main server", Hits: "main server", Weight: 1,
		Operator: "Nothing.",
		Inject:   byUser(func(w *world) *lab.Host { return w.Main }, "reset"),
	},
	{
		Name: "suspend-main-server", Does: "its user suspends the main server, and resumes it later", Hits: "main server", Weight: 1,
		Operator: "The power state PAUSED; points are made on.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			if !w.serverRuns(ctx, w.Main) {
				return nil, errNothingToHit
			}
			resume := func(ctx context.Context) error {
				if _, err := w.Main.Virsh(ctx, "resume", guest); err != nil && w.serverRuns(ctx, w.Main) {
					return err // a fence may have shut it down meanwhile
				}
				return nil
			}
			_, err := w.Main.Virsh(ctx, "suspend", guest)
			return resume, err
		},
	},
	{
		Name: "start-main-server", Does: "its user starts the main server, also when its epoch is over", Hits: "main server", Weight: 2,
		Operator: "If the epoch is over, on_main_return is applied again within seconds; the condition Fenced says what was done.",
		Inject: func(ctx context.Context, w *world) (func(context.Context) error, error) {
			if w.serverRuns(ctx, w.Main) {
				return nil, errNothingToHit
			}
			if _, err := w.Main.Virsh(ctx, "start", guest); err != nil && !w.serverRuns(ctx, w.Main) {
				return nil, err // otherwise hostd was faster
			}
			return nothing, nil
		},
	},
	{
		Name: "destroy-shadow-server", Does: "its user takes the shadow server's power, and starts it later", Hits: "shadow server", Weight: 2,
		ShadowServerMayFail: true,
		Operator:            "The power state OFF; while it is being verified, the operation fails with VERIFICATION_FAILED.",
		Inject:              byUser(func(w *world) *lab.Host { return w.Shadow }, "destroy"),
	},
}

// byUser gives the server a command of virsh, if it runs. The end of the cycle starts what must run.
func byUser(host func(*world) *lab.Host, command string) injector {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		h := host(w)
		if !w.serverRuns(ctx, h) {
			return nil, errNothingToHit
		}
		if _, err := h.Virsh(ctx, command, guest); err != nil && w.serverRuns(ctx, h) {
			return nil, err // otherwise it stopped by itself
		}
		return nothing, nil
	}
}

// checkpointPrefix begins the names of Umbra's checkpoints.
const checkpointPrefix = "umbra-" + pairID + "-"

func (w *world) checkpoints(ctx context.Context) ([]string, error) {
	out, err := w.Main.Virsh(ctx, "checkpoint-list", guest, "--name")
	if err != nil {
		return nil, err
	}
	var ours []string
	for name := range strings.FieldsSeq(out) {
		if strings.HasPrefix(name, checkpointPrefix) {
			ours = append(ours, name)
		}
	}
	return ours, nil
}

func deleteCheckpoints(flags ...string) injector {
	return func(ctx context.Context, w *world) (func(context.Context) error, error) {
		names, err := w.checkpoints(ctx)
		if err != nil || len(names) == 0 {
			return nil, errNothingToHit
		}
		hit := false
		for _, name := range names {
			// Umbra may have deleted it first, or have a job that needs it: then libvirt refuses.
			if _, err := w.Main.Virsh(ctx, append([]string{"checkpoint-delete", guest, name}, flags...)...); err == nil {
				hit = true
			}
		}
		if !hit {
			return nil, errNothingToHit
		}
		return nothing, nil
	}
}

// foreignTries is how often the other tool tries to begin between two of Umbra's jobs.
const foreignTries = 20

func beginForeignBackup(ctx context.Context, w *world) (func(context.Context) error, error) {
	if !w.serverRuns(ctx, w.Main) {
		return nil, errNothingToHit
	}
	dir := "/run/othertool"
	if err := os.MkdirAll(w.Main.Path(dir), 0o777); err != nil {
		return nil, fmt.Errorf("making the other tool's folder: %w", err)
	}
	job := `<domainbackup mode='pull'><server transport='unix' socket='` + dir + `/nbd.sock'/><disks>
<disk name='vda' backup='yes' type='file'><scratch file='` + dir + `/vda.qcow2'/></disk></disks></domainbackup>`
	file := filepath.Join(w.Main.Path(dir), "job.xml")
	if err := os.WriteFile(file, []byte(job), 0o600); err != nil {
		return nil, fmt.Errorf("describing the other tool's job: %w", err)
	}
	for range foreignTries {
		if _, err := w.Main.Virsh(ctx, "backup-begin", guest, dir+"/job.xml"); err == nil {
			return func(ctx context.Context) error {
				// The server may have been stopped, and the job with it.
				if _, err := w.Main.Virsh(ctx, "domjobabort", guest); err != nil && w.serverRuns(ctx, w.Main) {
					w.note("the other tool's job had ended: %v", err)
				}
				return os.RemoveAll(w.Main.Path(dir))
			}, nil
		}
		if !w.serverRuns(ctx, w.Main) {
			break
		}
	}
	return nil, errNothingToHit
}
