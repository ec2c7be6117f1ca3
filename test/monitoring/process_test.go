package monitoring_test

import (
	"bufio"
	"encoding/json"
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
	authority        *identity.Authority
	address, metrics string
	api              *grpc.ClientConn // as its local administrator
	log              lines
}

func startPlane(t *testing.T) *plane {
	t.Helper()
	dir := t.TempDir()
	command := filepath.Join(dir, "umbra-controlplane")
	build := exec.Command("go", "build", "-trimpath", "-o", command, "../../controlplane/cmd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the control plane: %v\n%s", err, out)
	}
	p := &plane{}
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
	socket := filepath.Join(dir, "api.sock")
	address, metrics := make(chan string, 1), make(chan string, 1)
	start(t, exec.Command(command, "--state-dir", filepath.Join(dir, "state"), "--listen", "127.0.0.1:0", "--unix-socket", socket,
		"--authority-cert", filepath.Join(dir, "ca.pem"), "--authority-key", filepath.Join(dir, "ca-key.pem"),
		"--metrics", "127.0.0.1:0", "--lease", "2s"), func(line []byte) {
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
	p.address, p.metrics = hear(t, address), hear(t, metrics)
	if p.api, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.api.Close() })
	return p
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

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}
