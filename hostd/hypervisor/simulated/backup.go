package simulated

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
)

const (
	socketName    = "umbra-nbd.sock"
	scratchPrefix = "umbra-scratch-"
)

// job is a running backup job.
type job struct {
	foreign bool
	server  *nbdServer // nil for a foreign job, which nobody reads
	files   []string
}

func (s *server) endJob() {
	if s.job == nil {
		return
	}
	if s.job.server != nil {
		s.job.server.close()
	}
	for _, file := range s.job.files {
		_ = os.Remove(file)
	}
	s.job = nil
}

// BeginBackup begins a job, as package hypervisor says. A freeze is answered by no agent.
func (h *Hypervisor) BeginBackup(ctx context.Context, req hypervisor.BackupRequest) (backup hypervisor.Backup, err error) {
	err = h.on(ctx, req.Server, func(s *server) error {
		if req.UUID != "" && req.UUID != s.definition.UUID {
			return fmt.Errorf("server %q has the UUID %s: %w", req.Server, s.definition.UUID, hypervisor.ErrNotFound)
		}
		if !s.active() {
			return fmt.Errorf("server %q: %w", req.Server, hypervisor.ErrNotRunning)
		}
		backup, err = s.begin(req)
		return err
	})
	return backup, err
}

func (s *server) begin(req hypervisor.BackupRequest) (hypervisor.Backup, error) {
	none := hypervisor.Backup{}
	if s.job != nil && s.job.foreign {
		return none, fmt.Errorf("server %q: %w", req.Server, hypervisor.ErrBackupBusy)
	}
	if s.position(req.Checkpoint) >= 0 {
		return none, fmt.Errorf("checkpoint %q exists already", req.Checkpoint)
	}
	backup := hypervisor.Backup{Socket: filepath.Join(req.RunDir, socketName), Disks: map[string]hypervisor.BackupExport{}}
	if req.FreezeBudget > 0 {
		backup.FreezeError = fmt.Errorf("freeze the file systems of server %q: %w", req.Server, hypervisor.ErrAgent)
	}
	made := &checkpoint{name: req.Checkpoint, dirty: map[string]bitmap{}}
	started := &job{}
	exports := map[string]export{}
	for _, target := range req.Disks {
		d, err := s.disk(target)
		if err != nil {
			return none, err
		}
		told := hypervisor.BackupExport{
			Name: target, SizeBytes: d.SizeBytes, Scratch: filepath.Join(req.RunDir, scratchPrefix+target+".qcow2"),
		}
		exported := export{image: d.image.view()}
		if d.TracksChanges {
			made.dirty[target] = bitmap{}
			if exported.dirty, err = s.changesIf(req.Since, target); err != nil {
				return none, err
			}
		}
		if exported.dirty != nil {
			exported.context = "qemu:dirty-bitmap:backup-" + target
			told.Bitmap = exported.context
		}
		exports[target], backup.Disks[target] = exported, told
		started.files = append(started.files, told.Scratch)
	}
	s.endJob()
	if err := cleanRunDir(req.RunDir); err != nil {
		return none, err
	}
	var err error
	if started.server, err = serve(backup.Socket, exports); err != nil {
		return none, err
	}
	s.job = started
	for _, file := range started.files {
		if err := os.WriteFile(file, []byte("simulated scratch\n"), 0o600); err != nil {
			s.endJob()
			return none, fmt.Errorf("make a scratch file: %w", err)
		}
	}
	if len(made.dirty) > 0 {
		s.checkpoints = append(s.checkpoints, made)
	}
	return backup, nil
}

func (s *server) changesIf(since, target string) (bitmap, error) {
	if since == "" {
		return nil, nil
	}
	return s.changes(since, target)
}

// EndBackup ends Umbra's job and removes its files.
func (h *Hypervisor) EndBackup(ctx context.Context, name, runDir string) error {
	err := h.on(ctx, name, func(s *server) error {
		if s.job != nil && !s.job.foreign {
			s.endJob()
		}
		return nil
	})
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	return cleanRunDir(runDir)
}

func cleanRunDir(runDir string) error {
	entries, err := os.ReadDir(runDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("clean the folder of a backup job: %w", err)
	}
	for _, entry := range entries {
		if entry.Name() != socketName && !strings.HasPrefix(entry.Name(), scratchPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(runDir, entry.Name())); err != nil {
			return fmt.Errorf("clean the folder of a backup job: %w", err)
		}
	}
	return nil
}
