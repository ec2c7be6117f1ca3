package monitoring_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// plane is a control plane's process, with an authority of the test's.
type plane struct {
	dir              string
	authority        *identity.Authority
	address, metrics string
	api              *grpc.ClientConn // as its local administrator
	log              lines
	kill             func() // ends the process as a crash does
}

func startPlane(t *testing.T, flags ...string) *plane {
	t.Helper()
	dir := t.TempDir()
	p := &plane{dir: dir, address: steadyAddress(t)}
	build := exec.Command("go", "build", "-trimpath", "-o", p.command(), "../../controlplane/cmd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the control plane: %v\n%s", err, out)
	}
	var err error
	if p.authority, err = identity.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	certs, secret, err := p.authority.PEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"ca.pem": certs, "ca-key.pem": secret} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.run(t, flags...)
	if p.api, err = grpc.NewClient("unix:"+p.socket(), grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.api.Close() })
	return p
}

func (p *plane) command() string { return filepath.Join(p.dir, "umbra-controlplane") }
func (p *plane) socket() string  { return filepath.Join(p.dir, "api.sock") }

// run starts the process, or starts it again at the address that it had.
func (p *plane) run(t *testing.T, flags ...string) {
	t.Helper()
	address, metrics := make(chan string, 1), make(chan string, 1)
	command := exec.Command(p.command(), append(flags, "--state-dir", filepath.Join(p.dir, "state"), "--listen", p.address, "--unix-socket", p.socket(),
		"--authority-cert", filepath.Join(p.dir, "ca.pem"), "--authority-key", filepath.Join(p.dir, "ca-key.pem"),
		"--metrics", "127.0.0.1:0", "--lease", "2s")...)
	ended := start(t, command, func(line []byte) {
		_, _ = p.log.Write(line) // never fails
		var said struct{ Msg, Address string }
		if err := json.Unmarshal(line, &said); err != nil {
			t.Errorf("%q is not JSON: %v", line, err)
		}
		switch said.Msg {
		case "serving hosts and clients":
			address <- said.Address
		case telemetry.ServingMetrics:
			metrics <- said.Address
		}
	})
	p.kill = func() {
		_ = command.Process.Kill() // it may have ended by itself
		<-ended
	}
	p.address, p.metrics = hear(t, address), hear(t, metrics)
}

// start starts a process, which ends with the test. It calls heard for each line on its standard error. ended is closed when the
// process has ended.
func start(t *testing.T, command *exec.Cmd, heard func(line []byte)) (ended <-chan struct{}) {
	t.Helper()
	said, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for lines := bufio.NewScanner(said); lines.Scan(); {
			heard(lines.Bytes())
		}
	}()
	t.Cleanup(func() {
		_ = command.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		<-over
		_ = command.Wait() // how it ended does not matter
	})
	return over
}

func hear(t *testing.T, said <-chan string) string {
	t.Helper()
	select {
	case what := <-said:
		return what
	case <-time.After(patience):
		t.Fatal("the process does not say where it serves")
		return ""
	}
}

// steadyAddress is free, and stays so while what listens there starts again: the system gives no port below 32768 to whoever
// asks for any.
func steadyAddress(t *testing.T) string {
	t.Helper()
	for range startsMax {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(10000))
		if listener, err := net.Listen("tcp", address); err == nil {
			must(t, listener.Close())
			return address
		}
	}
	t.Fatal("no address is free")
	return ""
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
