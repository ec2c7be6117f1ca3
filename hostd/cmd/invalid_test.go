package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/umbra-dr/umbra/pkg/identity"
	"github.com/umbra-dr/umbra/pkg/settings"
)

// systemd starts a daemon again and again, unless it ends with the code of settings that only a person can mend.
func TestWhatOnlyAPersonCanMendEndsHostdForGood(t *testing.T) {
	s := startSite(t)
	used, mine := s.token(t, "a"), s.newDaemon(t, "a")
	mine.live(t, used)
	mine.log.until(t, 0, func(text string) bool { return strings.Contains(text, "enrolled") })
	mine.stop()
	parsed, err := identity.ParseToken(used)
	must(t, err)
	junk := filepath.Join(t.TempDir(), "junk.pem")
	must(t, os.WriteFile(junk, []byte("junk"), 0o600))
	good := func(more ...string) []string {
		return append(more, "--host-id=a", "--control-plane="+s.address, "--data-listen=127.0.0.1:0")
	}
	for name, test := range map[string]struct {
		args []string
		says string
	}{
		"no token":                             {good(), "--join-token"},
		"a token that is none":                 {good("--join-token=umbra"), "--join-token"},
		"a token that was used":                {good("--join-token=" + used), "--join-token"},
		"a token that nobody made":             {good("--join-token=" + identity.NewToken(parsed.Fingerprint).String()), "--join-token"},
		"another host's token":                 {good("--join-token=" + s.token(t, "b")), `not as host "a"`},
		"a certificate that is not there":      {good("--tls-cert=/nonexistent", "--tls-key=/nonexistent", "--tls-ca=/nonexistent"), "/nonexistent"},
		"a certificate that cannot be read":    {good("--tls-cert="+junk, "--tls-key="+junk, "--tls-ca="+junk), "certificate"},
		"a host id that is none, and no token": {[]string{"--host-id=A/B", "--control-plane=" + s.address, "--data-listen=127.0.0.1:0"}, "--host-id"},
		"an address without a port":            {[]string{"--host-id=a", "--control-plane=" + s.address, "--data-listen=10.0.0.7"}, "--data-listen"},
	} {
		t.Run(name, func(t *testing.T) {
			ended, said := hostd(t, test.args...)
			if got := ended.ExitCode(); got != settings.InvalidExit || !strings.Contains(said, test.says) {
				t.Errorf("exit code %d, want %d, and %q: %s", got, settings.InvalidExit, test.says, said)
			}
		})
	}
}

func TestAHostWhoseControlPlaneIsAwayGoesOnTrying(t *testing.T) {
	authority, err := identity.NewAuthority(time.Now())
	must(t, err)
	s := &site{address: freeAddress(t)}
	d := s.newDaemon(t, "a")
	d.live(t, identity.NewToken(authority.Fingerprint()).String())
	d.log.until(t, 0, func(text string) bool { return strings.Count(text, "not enrolled yet, trying again") > 1 })
}

// hostd runs the command until it ends by itself.
func hostd(t *testing.T, args ...string) (ended *os.ProcessState, said string) {
	t.Helper()
	dir := t.TempDir()
	for _, of := range []string{"state", "store", "servers", "run"} {
		args = append(args, "--"+of+"-dir="+filepath.Join(dir, of))
	}
	run := exec.CommandContext(soon(t), os.Args[0])
	run.Env = append(os.Environ(), asCommand+"="+strings.Join(args, "\n"))
	out, err := run.CombinedOutput()
	if run.ProcessState == nil {
		t.Fatal(err)
	}
	return run.ProcessState, string(out)
}
