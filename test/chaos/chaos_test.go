package chaos_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/test/chaos"
)

// shortSeed is the seed of the short run.
const shortSeed = 1

// short is a handful of cycles along the whole flow, each with a fault of another kind.
var short = []chaos.Cycle{
	{Act: "protect", Fault: "kill-main-hostd", Delay: 500 * time.Millisecond},
	{Act: "replicate", Fault: "lose-shadow-to-main", Delay: 300 * time.Millisecond, Hold: time.Second},
	{Act: "failover", Fault: "kill-control-plane", Delay: 600 * time.Millisecond},
	{Act: "change", Fault: "kill-shadow-hostd", Delay: 700 * time.Millisecond},
	{Act: "return"},
	{Act: "commit", Fault: "kill-shadow-libvirtd", Delay: 200 * time.Millisecond},
	{Act: "delete", Fault: "kill-main-host", Delay: 100 * time.Millisecond},
}

func TestPromisesHoldUnderAHandfulOfFaults(t *testing.T) {
	dir, err := os.MkdirTemp("/var/tmp", "umbra-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tally, err := chaos.Run(t.Context(), chaos.Config{
		Binaries: buildBinaries(t), Dir: dir, CacheDir: "/var/tmp/umbra-lab-cache",
		Seed: shortSeed, Script: short, Out: logged{t},
	})
	tally.Write(logged{t})
	if err != nil {
		t.Fatal(err)
	}
}

// buildBinaries builds the two daemons as they are now, with the race detector when the test has it.
func buildBinaries(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, source := range map[string]string{"umbra-controlplane": "controlplane/cmd", "umbra-hostd": "hostd/cmd"} {
		args := append([]string{"build", "-o", filepath.Join(dir, name)}, raceFlag...)
		if out, err := exec.Command("go", append(args, "github.com/umbra-dr/umbra/"+source)...).CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

// logged writes to the test's log.
type logged struct{ t *testing.T }

func (l logged) Write(p []byte) (int, error) {
	l.t.Helper()
	l.t.Log(string(p[:max(0, len(p)-1)]))
	return len(p), nil
}

func TestABrokenPromiseSaysWhichCycleBrokeIt(t *testing.T) {
	cause := errors.New("two of them")
	err := &chaos.Broken{Cycle: chaos.Cycle{Number: 7, Act: "failover", Fault: "cut-main"}, Promise: "one server", Err: cause}
	if !errors.Is(err, cause) || fmt.Sprint(err) != "cycle 7 (failover, cut-main after 0s for 0s): one server: two of them" {
		t.Errorf("it says %v", err)
	}
}
