package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/umbra-dr/umbra/pkg/settings"
)

// systemd starts a daemon again and again, unless it ends with the code of settings that only a person can mend.
func TestWhatOnlyAPersonCanMendEndsTheControlPlaneForGood(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	junk := filepath.Join(t.TempDir(), "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	const listen = "--listen=127.0.0.1:0"
	for name, test := range map[string]struct {
		args []string
		want int
		says string
	}{
		"a lease below zero":                    {[]string{listen, "--lease=-1s"}, settings.InvalidExit, "--lease"},
		"certificates that are never good":      {[]string{listen, "--host-certificate-life=0s"}, settings.InvalidExit, "--host-certificate-life"},
		"an address without a port":             {[]string{"--listen=cp.example.net"}, settings.InvalidExit, "--listen"},
		"nowhere to be reached":                 {nil, settings.InvalidExit, "--unix-socket"},
		"an authority that is not there":        {[]string{listen, "--authority-cert=/nonexistent", "--authority-key=/nonexistent"}, settings.InvalidExit, "/nonexistent"},
		"an authority that cannot be read":      {[]string{listen, "--authority-cert=" + junk, "--authority-key=" + junk}, settings.InvalidExit, "authority"},
		"an issuer in plain text":               {[]string{listen, "--oidc-issuer=http://idp.example.net", "--oidc-audience=umbra"}, settings.InvalidExit, "OIDC issuer"},
		"an issuer without an audience":         {[]string{listen, "--oidc-issuer=https://idp.example.net"}, settings.InvalidExit, "audience"},
		"an issuer's authority not there":       {[]string{listen, "--oidc-issuer=https://idp.example.net", "--oidc-audience=umbra", "--oidc-ca=/nonexistent"}, settings.InvalidExit, "/nonexistent"},
		"an etcd in plain text":                 {[]string{listen, "--etcd-endpoint=http://10.0.0.1:2379"}, settings.InvalidExit, "10.0.0.1"},
		"an etcd's authority that is not there": {[]string{listen, "--etcd-endpoint=https://10.0.0.1:2379", "--etcd-ca=/nonexistent"}, settings.InvalidExit, "/nonexistent"},
		"an address that is in use, for now":    {[]string{"--listen=" + taken.Addr().String()}, 1, "in use"},
	} {
		t.Run(name, func(t *testing.T) {
			run := exec.CommandContext(soon(t), os.Args[0])
			run.Env = append(os.Environ(), asCommand+"="+strings.Join(append(test.args, "--state-dir", t.TempDir()), "\n"))
			said, err := run.CombinedOutput()
			if run.ProcessState == nil {
				t.Fatal(err)
			}
			if got := run.ProcessState.ExitCode(); got != test.want || !strings.Contains(string(said), test.says) {
				t.Errorf("exit code %d, want %d, and %q: %s", got, test.want, test.says, said)
			}
		})
	}
}
