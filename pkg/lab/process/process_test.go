package process_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/umbra-dr/umbra/pkg/lab/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) process.Identity {
	t.Helper()
	command := exec.Command("sleep", "600")
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := process.Identify(command.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = id.Kill(context.Background()) })
	return id
}

func TestKilledProcessIsGoneAndCollected(t *testing.T) {
	id := start(t)
	if err := id.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strconv.Itoa(id.PID)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("process %d is still in the process table: %v", id.PID, err)
	}
	if err := id.Kill(t.Context()); err != nil {
		t.Fatalf("killing it once more: %v", err)
	}
}

func TestProcessWithTheSameNumberButAnotherStartIsNeverTouched(t *testing.T) {
	id := start(t)
	stranger := id
	stranger.Start--
	if err := stranger.Signal(unix.SIGKILL); !errors.Is(err, process.ErrGone) {
		t.Fatalf("signal: %v, want ErrGone", err)
	}
	if err := stranger.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !id.Alive() {
		t.Fatal("the process that merely has the number was killed")
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	id := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- id.Wait(ctx) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("wait: %v, want context.Canceled", err)
	}
}

func TestNoProcessIsNotAlive(t *testing.T) {
	var none process.Identity
	if none.Alive() {
		t.Fatal("the zero identity is alive")
	}
	if err := none.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
}
