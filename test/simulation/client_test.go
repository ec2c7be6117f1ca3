package simulation_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/umbra-dr/umbra/controlplane/embedded"
	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

// TestTheCommandLineClientGoesFromProtectionToCommit types what a person would, with the real command, at the real control plane.
func TestTheCommandLineClientGoesFromProtectionToCommit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	etcd, stop, err := embedded.Start(ctx, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	w, err := newWorld(2, etcd, newNetwork()) // with one control plane
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	}()
	umbra := newClient(t, w)
	if _, err := w.main.machine.addServer(ctx, "web", uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	for {
		out, code := umbra(ctx, "protect", "web", "--main-host", "a", "--shadow-host", "b", "--interval", "1s")
		if code == 0 {
			break
		}
		if code != 3 && code != 4 || rest(ctx) != nil { // the host's inventory does not name the server yet
			t.Fatal(out)
		}
	}
	if out, code := umbra(ctx, "failover", "web"); code == 0 {
		t.Fatalf("a failover goes without a word from anybody: %s", out)
	}
	newest := w.somePoints(ctx, t, "drPairs/web")
	must := func(says string, args ...string) {
		t.Helper()
		if out, code := umbra(ctx, args...); code != 0 || !strings.Contains(out, says) {
			t.Fatalf("umbra %s: exit code %d, want 0 and %q:\n%s", strings.Join(args, " "), code, says, out)
		}
	}
	must("connected", "hosts", "list")
	must("REPLICATING", "pairs", "list")
	must("umbra failover web", "pairs", "show", "web")
	must("newest", "points", "list", "web")
	must("web on hosts/a", "update", "web", "--interval", "2s")
	must("umbra resume web", "pause", "web")
	must("umbra failover web", "resume", "web")
	must("6. verify server", "failover", "web", "--dry-run")
	must("umbra commit web", "failover", "web", "--yes")
	must("SUCCEEDED", "change-recovery-point", "web", "--yes", "--point", newest)
	must("The pair is COMMITTED", "commit", "web", "--yes", "--delete-recovery-points")
	must("commit failover", "operations", "list", "--pair", "web")
	if out, code := umbra(ctx, "failover", "web", "--yes"); code != 3 || !strings.Contains(out, "reason: STATE_NOT_ALLOWED") {
		t.Errorf("a failover of a committed pair: exit code %d\n%s", code, out)
	}
	out, _ := umbra(ctx, "pairs", "list", "-o", "json")
	var read struct{ DrPairs []struct{ State string } }
	if err := json.Unmarshal([]byte(out), &read); err != nil || len(read.DrPairs) != 1 || read.DrPairs[0].State != "DR_PAIR_STATE_COMMITTED" {
		t.Errorf("%v:\n%s", err, out)
	}
}

// somePoints waits until the pair replicates and has two points, and returns the newest one's id.
func (w *world) somePoints(ctx context.Context, t *testing.T, pair string) string {
	t.Helper()
	for rest(ctx) == nil {
		answer, err := w.failover.GetDRPair(ctx, &umbrav1.GetDRPairRequest{Name: pair})
		if err != nil {
			t.Fatal(err)
		}
		shown := answer.GetDrPair()
		if shown.GetState() == umbrav1.DRPairState_DR_PAIR_STATE_REPLICATING && shown.GetReplication().GetRecoveryPointCount() > 1 {
			return shown.GetReplication().GetNewestRecoveryPoint()
		}
	}
	t.Fatal("there are no recovery points")
	return ""
}

// newClient builds the command, and leads what it dials to the world's control plane.
func newClient(t *testing.T, w *world) func(ctx context.Context, args ...string) (string, int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "umbra")
	if err != nil {
		t.Fatal(err)
	}
	binary, socket := filepath.Join(dir, "umbra"), filepath.Join(dir, "s")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../../controlplane/umbra").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { lead(w, conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	return func(ctx context.Context, args ...string) (string, int) {
		command := exec.CommandContext(ctx, binary, append([]string{"--server", "unix:" + socket}, args...)...)
		out, err := command.CombinedOutput()
		if command.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), command.ProcessState.ExitCode()
	}
}

// lead copies between a client and the control plane until either ends.
func lead(w *world, client net.Conn) {
	defer client.Close()
	plane, err := w.network.dial(context.Background(), "client", planeMachines[0])
	if err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(client, plane)
		_ = client.Close()
	})
	_, _ = io.Copy(plane, client)
	_ = plane.Close()
	back.Wait()
}
