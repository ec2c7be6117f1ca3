package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestEveryShellGetsAScriptThatAsksThisCommand(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("UMBRA_SERVER", "cp.example.net:7443") // credentials are not needed
	for _, shell := range []string{"bash", "zsh", "fish"} {
		typed(t.Context(), "", []string{"completion", shell}).want(t, exitDone, "'"+self+"'")
	}
	typed(t.Context(), "", []string{"completion", "cmd.exe"}).want(t, exitUsage)
}

func TestWhatCouldFollowIsCompleted(t *testing.T) {
	for line, want := range map[string]string{"umbra fail": "failover", "umbra operations w": "watch", "umbra failover web --dry": "--dry-run"} {
		t.Setenv("COMP_LINE", line)
		r := typed(t.Context(), "", nil)
		if r.code != exitDone || !slices.Equal(strings.Fields(r.out), []string{want}) {
			t.Errorf("%q is completed by %q, exit code %d", line, r.out, r.code)
		}
	}
}
