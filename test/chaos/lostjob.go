package chaos

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// startLibvirtd starts a libvirtd that has ended. If it was killed as it began a backup job, it takes the server for being
// backed up for ever, by a job that it knows nothing of: that is taken out of what it has written down, as
// docs/troubleshooting.md tells an operator to.
func (w *world) startLibvirtd(ctx context.Context, h *lab.Host) error {
	states, err := filepath.Glob(filepath.Join(h.Path("/run/libvirt/qemu"), "*.xml"))
	if err != nil {
		return fmt.Errorf("look for what libvirtd has written down: %w", err)
	}
	for _, path := range states {
		state, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read what libvirtd has written down: %w", err)
		}
		job := []byte(` async='backup'`)
		if !bytes.Contains(state, job) || bytes.Contains(state, []byte(`<backups`)) {
			continue
		}
		if err := os.WriteFile(path, bytes.Replace(state, job, nil, 1), 0o600); err != nil {
			return fmt.Errorf("take a lost backup job out of libvirtd's state: %w", err)
		}
		w.tally.LostJobs["libvirtd of "+h.Name]++
		w.note("  libvirtd of %s was killed as it began a backup job, which is taken out of its state", h.Name)
	}
	if err := h.Libvirtd.Start(ctx); err != nil {
		return fmt.Errorf("start libvirtd of %s: %w", h.Name, err)
	}
	return nil
}
