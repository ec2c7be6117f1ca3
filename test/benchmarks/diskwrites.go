package main

import (
	"context"
	"fmt"
	"strings"
)

// diskWrite is virsh's command for a write through a server's QEMU, as if its guest had written.
func diskWrite(server string, pattern, off, bytes int64) string {
	return fmt.Sprintf(`qemu-monitor-command %s --hmp 'qemu-io -d /machine/peripheral/ua-vda/virtio-backend "write -P %d %d %d"'`, server, pattern, off, bytes)
}

// writesMax is how many writes one call of virsh takes: the argument of a program has a limit.
const writesMax = 500

// writeDisks does writes on the main host, in their order.
func (s *site) writeDisks(ctx context.Context, writes []string) error {
	for len(writes) > 0 {
		now := writes[:min(writesMax, len(writes))]
		writes = writes[len(now):]
		if said, err := s.Main.Virsh(ctx, strings.Join(now, "; ")); err != nil || strings.TrimSpace(said) != "" {
			return fmt.Errorf("write to disks through QEMU: %w: %s", err, said)
		}
	}
	return nil
}
