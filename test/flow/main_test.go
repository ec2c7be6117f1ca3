// Package flow_test walks every path of the failover flow on real libvirt hosts, with guests that really boot, through
// the public API. Each test brings up a landscape of its own and leaves nothing behind.
package flow_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/test/landscape"
)

const (
	pairID   = "web"
	pairName = "drPairs/" + pairID
	guest    = "web"
	// longest bounds every wait: generous, since nothing is timed here.
	longest = 4 * time.Minute
)

var binaries string

// TestMain builds the two daemons as they are now, with the race detector when the tests have it.
func TestMain(m *testing.M) {
	dir, err := buildDaemons()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func buildDaemons() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "umbra-flow-"); err != nil {
		return "", err
	}
	for name, source := range map[string]string{"umbra-controlplane": "controlplane/cmd", "umbra-hostd": "hostd/cmd"} {
		args := append([]string{"build", "-o", filepath.Join(dir, name)}, raceFlag...)
		build := exec.Command("go", append(args, "github.com/umbra-dr/umbra/"+source)...)
		if out, err := build.CombinedOutput(); err != nil {
			return "", errors.Join(fmt.Errorf("building %s: %w\n%s", name, err, out), os.RemoveAll(dir))
		}
	}
	return dir, nil
}

// world is a landscape with one guest on the main host.
type world struct {
	*landscape.Landscape
	t *testing.T
}

// newWorld brings a landscape up. The test's end takes it down; when the test has failed, the logs are shown.
func newWorld(t *testing.T, hostdArgs ...string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "umbra-flow-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	scape, err := landscape.Up(t.Context(), landscape.Config{
		Name: labName(), Dir: filepath.Join(dir, "lab"), CacheDir: "/var/tmp/umbra-lab-cache", Binaries: binaries, HostdArgs: hostdArgs,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			showLogs(t, scape)
		}
		if err := scape.Down(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("taking the landscape down: %v", err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &world{Landscape: scape, t: t}
}

// labName is another one in each process, so that two checkouts can run these tests at the same time.
func labName() string { return "f" + strconv.FormatInt(int64(os.Getpid()), 36) }

const logTail = 6000

func showLogs(t *testing.T, scape *landscape.Landscape) {
	for _, log := range []string{
		scape.ControlPlane.LogPath(), scape.Main.Hostd.LogPath(), scape.Shadow.Hostd.LogPath(), scape.Shadow.QEMULogPath(guest),
	} {
		text, err := os.ReadFile(log)
		if err != nil {
			t.Log(err)
			continue
		}
		t.Logf("%s:\n%s", log, text[max(0, len(text)-logTail):])
	}
}

func (w *world) ctx() context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), longest)
	w.t.Cleanup(cancel)
	return ctx
}

// boot starts the guest on the main host.
func (w *world) boot(spec lab.GuestSpec) {
	w.t.Helper()
	spec.Name = guest
	if err := w.Main.DefineGuest(w.ctx(), spec); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.Main.StartGuest(w.ctx(), guest, longest); err != nil {
		w.t.Fatal(err)
	}
}

// protect makes the pair and waits until it replicates.
func (w *world) protect(change func(*umbrav1.Policy)) {
	w.t.Helper()
	policy := &umbrav1.Policy{Interval: durationpb.New(time.Second)}
	if change != nil {
		change(policy)
	}
	_, err := w.Protection.CreateDRPair(w.ctx(), &umbrav1.CreateDRPairRequest{DrPairId: pairID, DrPair: &umbrav1.DRPair{
		Main:   &umbrav1.MainServer{Host: "hosts/" + landscape.MainHost, Server: guest},
		Shadow: &umbrav1.ShadowServer{Host: "hosts/" + landscape.ShadowHost},
		Policy: policy,
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	w.state(umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING)
}

// state waits for the state.
func (w *world) state(state umbrav1.DRPairState) *umbrav1.DRPair {
	w.t.Helper()
	pair, err := w.WaitState(w.ctx(), pairID, state)
	if err != nil {
		w.t.Fatal(err)
	}
	return pair
}

// waitPoints waits until there are at least so many points, and lists them, newest first.
func (w *world) waitPoints(count int64) []*umbrav1.RecoveryPoint {
	w.t.Helper()
	_, err := w.WaitPair(w.ctx(), pairID, func(p *umbrav1.DRPair) bool { return p.GetReplication().GetRecoveryPointCount() >= count })
	if err != nil {
		w.t.Fatal(err)
	}
	return w.points()
}

func (w *world) points() []*umbrav1.RecoveryPoint {
	w.t.Helper()
	points, err := w.Points(w.ctx(), pairID)
	if err != nil {
		w.t.Fatal(err)
	}
	return points
}

// end waits for the end of an operation and checks how it ended.
func (w *world) end(op *umbrav1.Operation, err error, want umbrav1.OperationState) *umbrav1.Operation {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	ended, err := w.WaitOperation(w.ctx(), op.GetName())
	if err != nil {
		w.t.Fatal(err)
	}
	if ended.GetState() != want {
		w.t.Fatalf("the operation is %v, want %v: %v", ended.GetState(), want, ended)
	}
	return ended
}

const (
	succeeded = umbrav1.OperationState_OPERATION_STATE_SUCCEEDED
	failed    = umbrav1.OperationState_OPERATION_STATE_FAILED
)
