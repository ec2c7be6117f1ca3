package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab"
)

// look is what a process has at one moment.
type look struct {
	at          time.Time
	process     string
	memoryBytes int64 // anonymous: what it has allocated, not what it has mapped of files
	descriptors int64
	threads     int64
}

// watch looks at all daemons until ctx ends.
func (w *world) watch(ctx context.Context, every time.Duration) ([]look, error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var looks []look
	for {
		for name, service := range map[string]*lab.Service{
			"control plane": w.ControlPlane, "hostd of the main host": w.Main.Hostd, "hostd of the shadow host": w.Shadow.Hostd,
		} {
			one, err := lookAt(name, service.PID())
			if err != nil {
				return looks, err
			}
			looks = append(looks, one)
		}
		select {
		case <-ctx.Done():
			return looks, nil
		case <-ticker.C:
		}
	}
}

// lookAt reads what the kernel says of a process (proc(5)).
func lookAt(name string, pid int) (look, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return look{}, fmt.Errorf("looking at %s: %w", name, err)
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		return look{}, fmt.Errorf("looking at %s: %w", name, err)
	}
	one := look{at: time.Now(), process: name, descriptors: int64(len(open))}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		number, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64) // 0 for what is no number
		switch key {
		case "RssAnon":
			one.memoryBytes = number << 10
		case "Threads":
			one.threads = number
		}
	}
	return one, nil
}

// write keeps all looks for whoever wants to see more than the judgement.
func write(path string, looks []look) error {
	var text strings.Builder
	text.WriteString("time\tprocess\tmemory_bytes\tdescriptors\tthreads\n")
	for _, l := range looks {
		fmt.Fprintf(&text, "%s\t%s\t%d\t%d\t%d\n", l.at.UTC().Format(time.RFC3339), l.process, l.memoryBytes, l.descriptors, l.threads)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the figures: %w", err)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil { //nolint:gosec // for everybody
		return fmt.Errorf("writing the figures: %w", err)
	}
	return nil
}
