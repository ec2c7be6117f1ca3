package libvirt

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	rpc "github.com/digitalocean/go-libvirt"
)

// logBytesMax bounds how much of the end of QEMU's log is given.
const logBytesMax = 256 << 10

// Diagnostics is libvirt's view of a server for a support bundle, by file name. It asks for no secrets. What cannot be
// had is told in errors.txt instead of failing the whole.
func (h *Hypervisor) Diagnostics(ctx context.Context, name string) (map[string][]byte, error) {
	dom, err := h.domain(ctx, name, "")
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	var errs bytes.Buffer
	sources := []struct {
		file string
		get  func(context.Context, rpc.Domain) (string, error)
	}{
		{"domain-live.xml", func(ctx context.Context, d rpc.Domain) (string, error) { return h.xml(ctx, d, 0) }},
		{"domain-inactive.xml", func(ctx context.Context, d rpc.Domain) (string, error) {
			return h.xml(ctx, d, rpc.DomainXMLInactive)
		}},
		{"statistics.txt", h.statistics},
		{"checkpoints.txt", h.describeCheckpoints},
		{"backup-job.xml", h.describeJob},
		{"qemu.log", func(_ context.Context, d rpc.Domain) (string, error) { return h.logTail(d.Name) }},
	}
	for _, source := range sources {
		text, err := source.get(ctx, dom)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("collect the diagnostics of server %q: %w", name, context.Cause(ctx))
		}
		if err != nil {
			fmt.Fprintf(&errs, "%s: %v\n", source.file, err)
			continue
		}
		files[source.file] = []byte(text)
	}
	if errs.Len() > 0 {
		files["errors.txt"] = errs.Bytes()
	}
	return files, nil
}

func (h *Hypervisor) statistics(ctx context.Context, dom rpc.Domain) (string, error) {
	const everything = 0
	records, err := ask(ctx, h, "get statistics", func(l *rpc.Libvirt) ([]rpc.DomainStatsRecord, error) {
		return l.ConnectGetAllDomainStats([]rpc.Domain{dom}, everything, uint32(rpc.ConnectGetAllDomainsStatsNowait))
	})
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, record := range records {
		for _, param := range record.Params {
			fmt.Fprintf(&text, "%s=%v\n", param.Field, param.Value.I)
		}
	}
	return text.String(), nil
}

// describeCheckpoints lists all checkpoints, foreign ones too, with their parents.
func (h *Hypervisor) describeCheckpoints(ctx context.Context, dom rpc.Domain) (string, error) {
	var text strings.Builder
	err := h.call(ctx, "list checkpoints", func(l *rpc.Libvirt) error {
		checkpoints, _, err := l.DomainListAllCheckpoints(dom, 1, uint32(rpc.DomainCheckpointListTopological))
		if err != nil {
			return err
		}
		for _, checkpoint := range checkpoints {
			parent, err := l.DomainCheckpointGetParent(checkpoint, 0)
			if err != nil && code(err) != rpc.ErrNoDomainCheckpoint {
				return err
			}
			fmt.Fprintf(&text, "%s parent=%q\n", checkpoint.Name, parent.Name)
		}
		return nil
	})
	return text.String(), err
}

func (h *Hypervisor) describeJob(ctx context.Context, dom rpc.Domain) (string, error) {
	return ask(ctx, h, "get the backup job", func(l *rpc.Libvirt) (string, error) {
		text, err := l.DomainBackupGetXMLDesc(dom, 0)
		if code(err) == rpc.ErrNoDomainBackup {
			return "none\n", nil
		}
		return text, err
	})
}

func (h *Hypervisor) logTail(server string) (string, error) {
	file, err := os.Open(filepath.Join(h.logDir, filepath.Base(server)+".log"))
	if err != nil {
		return "", fmt.Errorf("open QEMU's log: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", fmt.Errorf("size of QEMU's log: %w", err)
	}
	tail := io.NewSectionReader(file, max(0, info.Size()-logBytesMax), logBytesMax)
	text, err := io.ReadAll(tail)
	if err != nil {
		return "", fmt.Errorf("read QEMU's log: %w", err)
	}
	return string(text), nil
}
