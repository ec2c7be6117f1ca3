package nbd

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// findTool fails the test when the tool is missing: a promise about real servers must not pass without them.
func findTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed: apt-get install qemu-utils nbdkit", name)
	}
	return path
}

func runTool(t testing.TB, name string, args ...string) {
	t.Helper()
	if text, err := exec.Command(findTool(t, name), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, text)
	}
}

// startServer runs a server on a socket that listens already, the way systemd does, and returns the socket's path. So
// nothing has to wait for the server to be ready.
func startServer(t testing.TB, name string, args ...string) string {
	t.Helper()
	path := filepath.Join(shortTempDir(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	l.SetUnlinkOnClose(false)
	defer func() { _ = l.Close() }()
	socket, err := l.File()
	if err != nil {
		t.Fatalf("take the listening socket: %v", err)
	}
	defer func() { _ = socket.Close() }()

	// The server wants to be told its own pid, which only the process itself knows before it becomes the server.
	script := `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, findTool(t, name)}, args...)...)
	cmd.ExtraFiles = []*os.File{socket} // the first of them is number 3, where the server looks for it
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s %s:\n%s", name, strings.Join(args, " "), log.String())
		}
	})
	return path
}

func startNbdkit(t testing.TB, args ...string) string {
	t.Helper()
	return startServer(t, "nbdkit", append([]string{"-f"}, args...)...)
}

func startQemuNbd(t testing.TB, args ...string) string {
	t.Helper()
	return startServer(t, "qemu-nbd", append([]string{"-t", "-e", "8"}, args...)...)
}

func dialSocket(t testing.TB, socket string, cfg Config) *Client {
	t.Helper()
	cfg.Network, cfg.Address = "unix", socket
	c, err := Dial(context.Background(), cfg)
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
