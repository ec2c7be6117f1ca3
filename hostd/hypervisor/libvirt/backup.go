package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// BeginBackup begins a pull-mode job. A job of Umbra's that runs already is ended first; a foreign one is
// hypervisor.ErrBackupBusy, one that libvirt has lost hypervisor.ErrJobLost. When the context ends meanwhile, libvirt may
// still begin the job: EndBackup, or the next BeginBackup, finds it. The files in RunDir belong to one server at a time.
func (h *Hypervisor) BeginBackup(ctx context.Context, req hypervisor.BackupRequest) (hypervisor.Backup, error) {
	dom, err := h.domain(ctx, req.Server, req.UUID)
	if err != nil {
		return hypervisor.Backup{}, err
	}
	if err := h.running(ctx, dom); err != nil {
		return hypervisor.Backup{}, err
	}
	plan, err := h.planBackup(ctx, dom, req)
	if err != nil {
		return hypervisor.Backup{}, err
	}
	if err := h.endJob(ctx, dom, req.RunDir); err != nil {
		return hypervisor.Backup{}, err
	}
	if err := h.prepareRunDir(ctx, req.RunDir); err != nil {
		return hypervisor.Backup{}, err
	}
	backup := plan.backup()
	backup.Frozen, backup.FreezeError, err = h.frozen(ctx, dom, req.FreezeBudget, func(ctx context.Context) error {
		return h.begin(ctx, dom, plan)
	})
	if err != nil {
		return hypervisor.Backup{}, h.explain(ctx, dom, req, err)
	}
	return backup, nil
}

func (h *Hypervisor) begin(ctx context.Context, dom rpc.Domain, plan backupPlan) error {
	job, checkpoint, err := plan.xml()
	if err != nil {
		return err
	}
	return h.call(ctx, fmt.Sprintf("begin a backup of server %q", dom.Name), func(l *rpc.Libvirt) error {
		return l.DomainBackupBegin(dom, job, optional(checkpoint), 0)
	})
}

// explain adds to the failure of a begin what libvirt does not say by its code.
func (h *Hypervisor) explain(ctx context.Context, dom rpc.Domain, req hypervisor.BackupRequest, failed error) error {
	if code(failed) == 0 || errors.Is(failed, hypervisor.ErrCheckpointLost) {
		return failed
	}
	if notRunning := h.running(ctx, dom); errors.Is(notRunning, hypervisor.ErrNotRunning) {
		return fmt.Errorf("%w: %w", failed, notRunning)
	}
	if job, err := h.job(ctx, dom); err == nil && !ours(job, req.RunDir) {
		return fmt.Errorf("%w: %w", failed, hypervisor.ErrBackupBusy)
	}
	if code(failed) == rpc.ErrNoDomainCheckpoint || blamesBitmap(req, failed) {
		return fmt.Errorf("%w: %w", failed, hypervisor.ErrCheckpointLost)
	}
	return failed
}

// blamesBitmap: what QEMU, and libvirt before 8.0, finds wrong with a bitmap has no code of its own. A new bitmap whose
// name is taken is no reason to distrust the old one.
func blamesBitmap(req hypervisor.BackupRequest, failed error) bool {
	text := strings.ToLower(failed.Error())
	return req.Since != "" && strings.Contains(text, "bitmap") && !strings.Contains(text, "already exists")
}

// EndBackup ends Umbra's job on the server and removes its files in runDir. No job, or no server, is no error; a foreign
// job, and one that libvirt has lost, is left alone.
func (h *Hypervisor) EndBackup(ctx context.Context, server, runDir string) error {
	dom, err := h.domain(ctx, server, "")
	if err == nil {
		err = h.endJob(ctx, dom, runDir)
	}
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) && !errors.Is(err, hypervisor.ErrBackupBusy) &&
		!errors.Is(err, hypervisor.ErrJobLost) {
		return err
	}
	return cleanRunDir(runDir)
}
