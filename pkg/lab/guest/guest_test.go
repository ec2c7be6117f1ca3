package guest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/umbra-dr/umbra/pkg/lab/guest"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// boot is a boot partition that holds a file system but no kernel: enough to lay out disks.
func boot(t *testing.T) guest.Boot {
	t.Helper()
	path := filepath.Join(t.TempDir(), "partition")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 31*guest.MiB); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "mkfs.fat", "-F", "16", path)
	return guest.Boot{Partition: path, Bytes: 31 * guest.MiB}
}

func TestDisksHoldOneFreshLedgerAndNothingElseIsLeft(t *testing.T) {
	dir := t.TempDir()
	disks := guest.Disks{
		Paths: []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}, Sizes: []int64{48 * guest.MiB, 16 * guest.MiB},
		Format: guest.Raw, ID: ledger.ID{7}, RecordBytes: 8192, Settings: []string{"umbra.rate=3"},
	}
	if err := boot(t).Make(t.Context(), disks); err != nil {
		t.Fatal(err)
	}
	a, b := open(t, disks.Paths[0]), open(t, disks.Paths[1])
	report, err := ledger.Verify(guest.Areas(a, b), nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.ID != disks.ID || report.Disks != 2 || report.Last != 0 || !report.Intact() {
		t.Errorf("the ledger: %+v", report)
	}
	partitions := mustRun(t, "sfdisk", "--dump", disks.Paths[0])
	if !strings.Contains(partitions, "bootable") || strings.Count(partitions, "start=") != 2 {
		t.Errorf("partitions:\n%s", partitions)
	}
	menu := mustRun(t, "mtype", "-i", disks.Paths[0]+"@@1M", "::syslinux.cfg")
	if !strings.Contains(menu, "umbra.rate=3") {
		t.Errorf("the boot menu:\n%s", menu)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("files in the folder: %v, %v", left, err)
	}
}

func TestQcow2DiskReadsAsTheRawOne(t *testing.T) {
	dir := t.TempDir()
	partition := boot(t)
	path, raw := filepath.Join(dir, "a.qcow2"), filepath.Join(dir, "a.raw")
	if err := partition.Make(t.Context(), guest.Disks{Paths: []string{path}, Sizes: []int64{48 * guest.MiB}, ID: ledger.ID{7}}); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
	report, err := ledger.Verify(guest.Areas(open(t, raw)), nil)
	if err != nil || report.ID != (ledger.ID{7}) {
		t.Errorf("%+v, %v", report, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("files in the folder: %v, %v", left, err)
	}
}

func TestDisksThatCannotWorkAreRefused(t *testing.T) {
	partition := guest.Boot{}
	for name, disks := range map[string]guest.Disks{
		"none":            {},
		"too small":       {Paths: []string{"a"}, Sizes: []int64{guest.MiB}},
		"odd size":        {Paths: []string{"a"}, Sizes: []int64{guest.DiskBytesMin + 512}},
		"sizes are wrong": {Paths: []string{"a", "b"}, Sizes: []int64{guest.DiskBytesMin}},
	} {
		if err := partition.Make(t.Context(), disks); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCacheIsOpenForOneAtATimeAndWaitingForItEndsWithTheContext(t *testing.T) {
	dir := t.TempDir()
	first, err := guest.OpenCache(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := guest.OpenCache(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Fatalf("a second opening: %v, want context.Canceled", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := guest.OpenCache(ctx, dir)
	if err != nil {
		t.Fatalf("after the first was closed: %v", err)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
}
