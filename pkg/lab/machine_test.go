package lab_test

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/pkg/lab"
	"github.com/umbra-dr/umbra/pkg/lab/console"
	"github.com/umbra-dr/umbra/pkg/lab/labtest"
)

// stubborn says where it runs, and ignores a request to end until it has said so.
const stubborn = `trap 'echo asked to end; exit 0' TERM; echo "$1 $2 $WHO"; hostname -I 2>/dev/null; ip -brief address show eth0; while :; do sleep 0.05; done`

func logOf(t *testing.T, s *lab.Service) string {
	t.Helper()
	text, err := os.ReadFile(s.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func waitLog(t *testing.T, s *lab.Service, pattern string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := console.Open(s.LogPath()).Wait(ctx, regexp.MustCompile(pattern)); err != nil {
		t.Fatal(err)
	}
}

func TestServicesRunOnTheirMachinesAndCanBeStoppedKilledAndStartedAgain(t *testing.T) {
	config := labtest.Config(t)
	program := lab.Program{Path: "sh", Args: []string{"-c", stubborn, "stubborn", "{name}", "{control-plane}"}, Env: []string{"WHO={address}"}}
	config.ControlPlane, config.Hostd = program, program
	l := labtest.Up(t, config)
	for _, s := range []struct {
		service *lab.Service
		want    string
	}{
		{l.ControlPlane, "control 198.18.0.1 198.18.0.1\n"},
		{l.Main.Hostd, "main 198.18.0.1 198.18.0.11\n"},
		{l.Shadow.Hostd, "shadow 198.18.0.1 198.18.0.12\n"},
	} {
		waitLog(t, s.service, `eth0@`)
		if !strings.HasPrefix(logOf(t, s.service), s.want) {
			t.Errorf("%s said %q, want %q first", s.service.Name, logOf(t, s.service), s.want)
		}
	}
	hostd := l.Main.Hostd
	if err := hostd.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if hostd.Running() || !strings.HasSuffix(logOf(t, hostd), "asked to end\n") {
		t.Errorf("after Stop: running %v, log %q", hostd.Running(), logOf(t, hostd))
	}
	if err := hostd.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitLog(t, hostd, `(?s)asked to end.*eth0@`)
	if err := hostd.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if hostd.Running() {
		t.Error("after Kill it still runs")
	}
	if !l.Shadow.Hostd.Running() {
		t.Error("the service of the other host ended with it")
	}
}

func TestMachinesReachOneAnotherUnlessALinkIsDown(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	reach := func() error {
		return l.Main.Command(t.Context(), "busybox", "ping", "-c", "1", "-W", "1", lab.ControlPlaneAddress).Run()
	}
	if err := reach(); err != nil {
		t.Fatalf("with all links up: %v", err)
	}
	if err := l.Main.SetLink(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if reach() == nil {
		t.Error("the main host reaches the control plane without its link")
	}
	if err := l.Main.SetLink(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	// A link that was just plugged in takes a moment, in the lab as elsewhere.
	again := l.Main.Command(t.Context(), "timeout", "20", "sh", "-c", "until busybox ping -c 1 -W 1 "+lab.ControlPlaneAddress+"; do :; done")
	if err := again.Run(); err != nil {
		t.Errorf("with the link up again: %v", err)
	}
}

func TestACommandThatIsCancelledLeavesNothingRunning(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	ctx, cancel := context.WithCancel(t.Context())
	command := l.Main.Command(ctx, "sh", "-c", "echo started; sleep 599")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := command.Wait(); err == nil {
		t.Error("the command ended well")
	}
	running, err := l.Main.Command(t.Context(), "ps", "-e", "-o", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(running), "sleep 599") {
		t.Errorf("still running:\n%s", running)
	}
}

func TestAMachineWithoutPowerRunsNothing(t *testing.T) {
	l := labtest.Up(t, labtest.Config(t))
	if err := l.Main.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.Main.Command(t.Context(), "true").Run(); !errors.Is(err, lab.ErrPoweredOff) {
		t.Errorf("a command: %v, want ErrPoweredOff", err)
	}
	if err := l.Main.Libvirtd.Start(t.Context()); !errors.Is(err, lab.ErrPoweredOff) {
		t.Errorf("a service: %v, want ErrPoweredOff", err)
	}
}
