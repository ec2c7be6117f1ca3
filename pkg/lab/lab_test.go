package lab_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/labtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// traces is what there is of a lab on the computer.
type traces struct {
	processes []string // command lines of those that see a folder of the lab mounted, or name it
	spaces    []string // network namespaces
	mounts    []string // on the computer itself
}

func (t traces) count() int { return len(t.processes) + len(t.spaces) + len(t.mounts) }

func tracesOf(t *testing.T, config lab.Config) traces {
	t.Helper()
	var found traces
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		// Processes come and go meanwhile; what cannot be read any more is gone.
		command, _ := os.ReadFile(filepath.Join(entry, "cmdline"))
		mounts, _ := os.ReadFile(filepath.Join(entry, "mountinfo"))
		if strings.Contains(string(command)+string(mounts), config.Dir) {
			found.processes = append(found.processes, strings.ReplaceAll(string(command), "\x00", " "))
		}
	}
	names, err := filepath.Glob("/run/netns/" + config.Name + "-*")
	if err != nil {
		t.Fatal(err)
	}
	found.spaces = names
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, config.Dir) || strings.Contains(line, "/"+config.Name+"-") {
			found.mounts = append(found.mounts, line)
		}
	}
	return found
}

func TestTwoHostsComeUpAndGoDownLeavingNothing(t *testing.T) {
	config := labtest.Config(t)
	linksBefore, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	l := labtest.Up(t, config)
	for _, h := range l.Hosts() {
		networks, err := h.Virsh(t.Context(), "net-list", "--name")
		if err != nil {
			t.Fatal(err)
		}
		if networks != lab.GuestNetwork {
			t.Errorf("host %s has the networks %q, want %q", h.Name, networks, lab.GuestNetwork)
		}
	}
	during := tracesOf(t, config)
	if len(during.processes) == 0 || len(during.spaces) != 4 {
		t.Fatalf("while the lab is up there must be something to find: %+v", during)
	}
	linksDuring, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	if len(linksDuring) != len(linksBefore) {
		t.Errorf("the computer's own network has %d links, had %d", len(linksDuring), len(linksBefore))
	}
	if err := l.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := tracesOf(t, config); after.count() != 0 {
		t.Errorf("left behind: %+v", after)
	}
	if _, err := os.Stat(config.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestHostsAreTwoDifferentComputersToLibvirt(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	identities := map[string]bool{}
	for _, h := range l.Hosts() {
		capabilities, err := h.Virsh(t.Context(), "capabilities")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(capabilities, "<uuid>")
		identity, _, _ := strings.Cut(rest, "</uuid>")
		identities[identity] = true
		user := "+0:+0"
		isRoot := strings.Contains(capabilities, "<baselabel type='kvm'>"+user) || strings.Contains(capabilities, "<baselabel type='qemu'>"+user)
		if wantRoot := h == l.Main; isRoot != wantRoot {
			t.Errorf("host %s runs QEMU as root: %v, want %v", h.Name, isRoot, wantRoot)
		}
	}
	if len(identities) != 2 {
		t.Errorf("the hosts' identities are %v", identities)
	}
}

func TestUpClearsAwayWhatACrashedLabLeftInItsFolder(t *testing.T) {
	config := labtest.Config(t)
	crashed := labtest.Up(t, config) // nobody takes it down before the next comes up
	second := labtest.Up(t, config)
	if crashed.Main.Libvirtd.Running() {
		t.Error("the libvirt of the crashed lab still runs")
	}
	if _, err := second.Main.Virsh(t.Context(), "list"); err != nil {
		t.Error(err)
	}
}

func TestAnotherProcessCanAttachAndTakeTheLabDown(t *testing.T) {
	config := labtest.Config(t)
	labtest.Up(t, config)
	attached, err := lab.Attach(config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attached.Shadow.Virsh(t.Context(), "list"); err != nil {
		t.Fatal(err)
	}
	if err := attached.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := tracesOf(t, config); after.count() != 0 {
		t.Errorf("left behind: %+v", after)
	}
	if _, err := lab.Attach(config.Dir); !errors.Is(err, lab.ErrNoLab) {
		t.Errorf("attach to a lab that is down: %v, want ErrNoLab", err)
	}
}

func TestALabNeverTakesTheNamespacesOfAnother(t *testing.T) {
	config := labtest.Config(t)
	first := labtest.Up(t, config)
	config.Dir += "2"
	if _, err := lab.Up(t.Context(), config); !errors.Is(err, lab.ErrNameInUse) {
		t.Fatalf("a second lab of the same name: %v, want ErrNameInUse", err)
	}
	if _, err := first.Main.Virsh(t.Context(), "list"); err != nil {
		t.Errorf("the first lab suffered: %v", err)
	}
}

func TestAFolderThatIsTooDeepForSocketsIsRefusedWithAReason(t *testing.T) {
	config := labtest.Config(t)
	config.Dir = filepath.Join(config.Dir, strings.Repeat("deep", 30))
	if _, err := lab.Up(t.Context(), config); !errors.Is(err, lab.ErrNotPossibleHere) {
		t.Fatalf("%v, want ErrNotPossibleHere", err)
	}
}
