package hypervisortest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/umbra-dr/umbra/hostd/hypervisor"
	"github.com/umbra-dr/umbra/pkg/nbd"
)

// allocation is the standard context that tells which extents are zeros.
const allocation = "base:allocation"

func dial(t *testing.T, backup hypervisor.Backup, disk string) *nbd.Client {
	t.Helper()
	export, ok := backup.Disks[disk]
	if !ok {
		t.Fatalf("the job has no disk %q: %v", disk, backup.Disks)
	}
	contexts := []string{allocation}
	if export.Bitmap != "" {
		contexts = append(contexts, export.Bitmap)
	}
	client, err := nbd.Dial(t.Context(), nbd.Config{
		Network: "unix", Address: backup.Socket, Export: export.Name, MetaContexts: contexts,
	})
	must(t, err)
	for _, name := range contexts {
		if !client.HasContext(name) {
			t.Fatalf("the export of %q has no context %q", disk, name)
		}
	}
	want(t, "size of the export", client.Size(), uint64(export.SizeBytes))
	return client
}

// content describes an exported disk as "value@offset+length" in MiB for each run of equal megabytes that are not zero.
func content(t *testing.T, backup hypervisor.Backup, disk string) string {
	t.Helper()
	client := dial(t, backup, disk)
	defer client.Close()
	var runs []string
	block := make([]byte, mib)
	for offset := uint64(0); offset < client.Size(); offset += mib {
		must(t, client.ReadAt(t.Context(), block, offset))
		value := block[0]
		if !bytes.Equal(block, bytes.Repeat([]byte{value}, mib)) {
			t.Fatalf("megabyte %d of %q is not of one value", offset/mib, disk)
		}
		if value != 0 {
			runs = append(runs, fmt.Sprintf("%d@%d", value, offset/mib))
		}
	}
	return strings.Join(runs, " ")
}

// dirty describes what an exported disk's bitmap says has changed, as "offset+length" in KiB for each extent.
func dirty(t *testing.T, backup hypervisor.Backup, disk string) string {
	t.Helper()
	bitmap := backup.Disks[disk].Bitmap
	if bitmap == "" {
		return "untold"
	}
	client := dial(t, backup, disk)
	defer client.Close()
	var runs []string
	must(t, client.BlockStatus(t.Context(), bitmap, 0, client.Size(), func(e nbd.Extent) error {
		if e.Flags&nbd.StateDirty != 0 {
			runs = append(runs, fmt.Sprintf("%d+%d", e.Offset>>10, e.Length>>10))
		}
		return nil
	}))
	return strings.Join(runs, " ")
}
