package lab_test

import (
	"context"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/guest"
	"github.com/umbra-dr/umbra/pkg/lab/labtest"
	"github.com/umbra-dr/umbra/pkg/lab/ledger"
)

// bootTimeout is generous: without acceleration, on a busy computer, a boot takes many seconds.
const bootTimeout = 90 * time.Second

const smallDisk = 64 << 20

func startGuest(t *testing.T, h *lab.Host, spec lab.GuestSpec) ledger.Report {
	t.Helper()
	if err := h.DefineGuest(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	return restartGuest(t, h, spec.Name)
}

func restartGuest(t *testing.T, h *lab.Host, name string) ledger.Report {
	t.Helper()
	report, err := h.StartGuest(t.Context(), name, bootTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func waitConsole(t *testing.T, h *lab.Host, name, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTimeout)
	defer cancel()
	if _, err := h.WaitConsole(ctx, name, regexp.MustCompile(pattern)); err != nil {
		t.Fatal(err)
	}
}

func announced(t *testing.T, h *lab.Host, name string) uint64 {
	t.Helper()
	told, err := h.Console(name).Ledger()
	if err != nil {
		t.Fatal(err)
	}
	return told.Last
}

func TestGuestBootsFromItsOwnDiskAndWritesTheLedger(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	h := l.Main
	spec := lab.GuestSpec{
		Name: "writer", DiskBytes: []int64{smallDisk, smallDisk / 2}, Format: guest.Raw,
		Address: netip.MustParsePrefix("198.19.0.10/24"),
	}
	fresh := startGuest(t, h, spec)
	if fresh.Last != 0 || !fresh.Intact() || fresh.Disks != 2 {
		t.Fatalf("a fresh ledger: %+v", fresh)
	}
	waitConsole(t, h, spec.Name, `record 20\r\n`)
	probe, err := h.Command(t.Context(), "busybox", "nc", "-w", "5", "198.19.0.10", "7").Output()
	if err != nil || !strings.HasPrefix(string(probe), ledger.Prefix+"record ") {
		t.Errorf("the guest's answer to a probe: %q, %v", probe, err)
	}
	// The power button, not the plug: the guest ends by itself.
	if _, err := h.Virsh(t.Context(), "shutdown", spec.Name); err != nil {
		t.Fatal(err)
	}
	waitConsole(t, h, spec.Name, `off at record \d+\r\n`)
	last := announced(t, h, spec.Name)
	onDisk := verifyRaw(t, h.ImagesDir(), "writer-vda.raw", "writer-vdb.raw")
	if !onDisk.Intact() || onDisk.Last != last || onDisk.ID != fresh.ID {
		t.Errorf("the disks hold %+v, announced was %d", onDisk, last)
	}
}

func verifyRaw(t *testing.T, dir string, names ...string) ledger.Report {
	t.Helper()
	var disks []io.ReaderAt
	for _, name := range names {
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }() // read only
		disks = append(disks, file)
	}
	report, err := ledger.Verify(guest.Areas(disks...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func TestKilledHostIsDeadUntilItIsRevivedAndItsGuestsKeepWhatTheyAnnounced(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	h := l.Shadow // whose QEMU is not root's, so that libvirt has owners of files to remember
	spec := lab.GuestSpec{Name: "victim", DiskBytes: []int64{smallDisk}}
	fresh := startGuest(t, h, spec)
	waitConsole(t, h, spec.Name, `record 10\r\n`)
	if err := h.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := announced(t, h, spec.Name)
	if h.Alive() || h.Libvirtd.Running() {
		t.Fatal("the host still runs")
	}
	if _, err := h.Virsh(t.Context(), "list"); err == nil {
		t.Fatal("a dead host answers")
	}
	if _, err := l.Main.Virsh(t.Context(), "list"); err != nil {
		t.Errorf("the other host suffered: %v", err)
	}
	if now := announced(t, h, spec.Name); now != before {
		t.Errorf("a dead guest announced records %d to %d", before+1, now)
	}
	if err := h.Revive(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := restartGuest(t, h, spec.Name)
	// One record may have been written and not announced.
	if !again.Intact() || again.ID != fresh.ID || again.Last < before || again.Last > before+1 {
		t.Errorf("after the failure the guest found %+v, announced was %d", again, before)
	}
}

func TestAFastLedgerWrapsAndSurvivesTheDeathOfItsQEMU(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	spec := lab.GuestSpec{Name: "fast", DiskBytes: []int64{smallDisk}, RateBytes: 10 << 20}
	report := startGuest(t, l.Main, spec)
	// 10 MiB a second in 25 records are 103 blocks each, 77 of which fit into the 32 MiB of the ledger.
	if want := uint64(32<<20-ledger.BlockBytes) / (103 * ledger.BlockBytes); report.Ring != want {
		t.Errorf("the ring holds %d records, want %d", report.Ring, want)
	}
	waitConsole(t, l.Main, spec.Name, `record 100\r\n`)
	if err := l.Main.KillGuest(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	before := announced(t, l.Main, spec.Name)
	again := restartGuest(t, l.Main, spec.Name)
	if !again.Intact() || again.Last < before || again.Last > before+1 {
		t.Errorf("after its QEMU was killed the guest found %+v, announced was %d", again, before)
	}
}
