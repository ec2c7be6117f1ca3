package libvirt

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	rpc "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

// bitmapContext begins the name of the NBD meta context in which QEMU exports a bitmap.
const bitmapContext = "qemu:dirty-bitmap:"

// backupPlan is a job before it begins.
type backupPlan struct {
	checkpoint string // "" when no disk of the job tracks changes
	since      string
	runDir     string // for scratch files
	socketDir  string
	disks      []plannedDisk // all disks of the server
}

type plannedDisk struct {
	hypervisor.Disk
	backedUp bool
	bitmap   bool // whether the job tells what changed
}

// planBackup decides what becomes of each disk. A disk that the checkpoint does not know (it was added since) is backed
// up without telling what changed on it.
func (h *Hypervisor) planBackup(ctx context.Context, dom rpc.Domain, req hypervisor.BackupRequest) (backupPlan, error) {
	definition, err := h.definition(ctx, dom, 0)
	if err != nil {
		return backupPlan{}, err
	}
	known, err := h.checkpointDisks(ctx, dom, req.Since)
	if err != nil {
		return backupPlan{}, err
	}
	plan := backupPlan{since: req.Since, runDir: req.RunDir, socketDir: socketDir(serversDir, dom, req.RunDir)}
	for _, disk := range disksOf(definition) {
		planned := plannedDisk{Disk: disk, backedUp: slices.Contains(req.Disks, disk.Target)}
		if planned.backedUp && disk.TracksChanges {
			planned.bitmap = slices.Contains(known, disk.Target)
			plan.checkpoint = req.Checkpoint
		}
		if planned.backedUp && disk.SizeBytes == 0 {
			if planned.SizeBytes, err = h.diskSize(ctx, dom, disk.Target); err != nil {
				return backupPlan{}, err
			}
		}
		plan.disks = append(plan.disks, planned)
	}
	for _, target := range req.Disks {
		if !slices.ContainsFunc(plan.disks, func(d plannedDisk) bool { return d.Target == target }) {
			return backupPlan{}, fmt.Errorf("server %q has no disk %q: %w", dom.Name, target, hypervisor.ErrNotFound)
		}
	}
	return plan, nil
}

// checkpointDisks are the disks whose changes since the checkpoint are tracked; none for "".
func (h *Hypervisor) checkpointDisks(ctx context.Context, dom rpc.Domain, name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	what := fmt.Sprintf("look for checkpoint %q of server %q", name, dom.Name)
	text, err := ask(ctx, h, what, func(l *rpc.Libvirt) (string, error) {
		checkpoint, err := l.DomainCheckpointLookupByName(dom, name, 0)
		if err != nil {
			return "", err
		}
		return l.DomainCheckpointGetXMLDesc(checkpoint, 0)
	})
	if code(err) == rpc.ErrNoDomainCheckpoint {
		return nil, fmt.Errorf("%w: %w", hypervisor.ErrCheckpointLost, err)
	}
	if err != nil {
		return nil, err
	}
	var checkpoint libvirtxml.DomainCheckpoint
	if err := checkpoint.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("read checkpoint %q of server %q: %w", name, dom.Name, err)
	}
	if checkpoint.Disks == nil {
		return nil, nil
	}
	var disks []string
	for _, disk := range checkpoint.Disks.Disks {
		if disk.Checkpoint == "bitmap" {
			disks = append(disks, disk.Name)
		}
	}
	return disks, nil
}

func (h *Hypervisor) diskSize(ctx context.Context, dom rpc.Domain, target string) (int64, error) {
	what := fmt.Sprintf("get the size of disk %q of server %q", target, dom.Name)
	return ask(ctx, h, what, func(l *rpc.Libvirt) (int64, error) {
		_, capacity, _, err := l.DomainGetBlockInfo(dom, target, 0)
		return int64(capacity), err
	})
}

func (p backupPlan) socket() string { return filepath.Join(p.socketDir, socketName) }

func (p backupPlan) scratch(target string) string {
	return filepath.Join(p.runDir, scratchPrefix+target+scratchSuffix)
}

// backup is what the caller gets to know of the job.
func (p backupPlan) backup() hypervisor.Backup {
	backup := hypervisor.Backup{Socket: p.socket(), Disks: map[string]hypervisor.BackupExport{}}
	for _, disk := range p.disks {
		if !disk.backedUp {
			continue
		}
		export := hypervisor.BackupExport{Name: disk.Target, SizeBytes: disk.SizeBytes, Scratch: p.scratch(disk.Target)}
		if disk.bitmap {
			export.Bitmap = bitmapContext + exportBitmap(disk.Target)
		}
		backup.Disks[disk.Target] = export
	}
	return backup
}

func exportBitmap(target string) string { return "backup-" + target }

// xml writes the job and its checkpoint for libvirt. The checkpoint is "" when there is none to make.
func (p backupPlan) xml() (job, checkpoint string, err error) {
	pull := libvirtxml.DomainBackupPull{
		Server: &libvirtxml.DomainBackupPullServer{UNIX: &libvirtxml.DomainBackupPullServerUNIX{Socket: p.socket()}},
		Disks:  &libvirtxml.DomainBackupPullDisks{},
	}
	var tracked libvirtxml.DomainCheckpointDisks
	for _, disk := range p.disks {
		pull.Disks.Disks = append(pull.Disks.Disks, p.jobDisk(disk))
		mode := "no"
		if disk.backedUp && disk.TracksChanges {
			mode = "bitmap"
		}
		tracked.Disks = append(tracked.Disks, libvirtxml.DomainCheckpointDisk{Name: disk.Target, Checkpoint: mode})
	}
	job, err = (&libvirtxml.DomainBackup{Pull: &pull}).Marshal()
	if p.checkpoint != "" {
		var checkpointErr error
		checkpoint, checkpointErr = (&libvirtxml.DomainCheckpoint{Name: p.checkpoint, Disks: &tracked}).Marshal()
		err = errors.Join(err, checkpointErr)
	}
	if err != nil {
		return "", "", fmt.Errorf("write the backup job: %w", err)
	}
	return job, checkpoint, nil
}

func (p backupPlan) jobDisk(disk plannedDisk) libvirtxml.DomainBackupPullDisk {
	if !disk.backedUp {
		return libvirtxml.DomainBackupPullDisk{Name: disk.Target, Backup: "no"}
	}
	planned := libvirtxml.DomainBackupPullDisk{
		Name: disk.Target, Backup: "yes", BackupMode: "full", ExportName: disk.Target,
		// libvirt's schema allows no other format of scratch files.
		Driver:  &libvirtxml.DomainBackupDiskDriver{Type: "qcow2"},
		Scratch: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: p.scratch(disk.Target)}},
	}
	if disk.bitmap {
		planned.BackupMode, planned.Incremental = "incremental", p.since
		planned.ExportBitmap = exportBitmap(disk.Target)
	}
	return planned
}
