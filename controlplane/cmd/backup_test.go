package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	umbrav1 "github.com/umbra-dr/umbra/gen/umbra/v1"
)

func TestARestoredControlPlaneIsTheOneThatWasSaved(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s := &site{stateDir: t.TempDir()}
	s.socket = filepath.Join(s.stateDir, "api.sock")
	f := flags{recordsFlags: recordsFlags{StateDir: s.stateDir}, Listen: "127.0.0.1:0", UnixSocket: s.socket, Lease: time.Second}
	s.start(t, f)
	administrator := loadFolder(t, filepath.Join(s.stateDir, "administrator"))
	file := filepath.Join(t.TempDir(), "umbra.backup")
	if err := saveBackup(soon(t), backupFlags{File: file, UnixSocket: s.socket}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	s.stop()

	if err := restore(soon(t), restoreFlags{File: file, recordsFlags: recordsFlags{StateDir: s.stateDir}}, log); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restored over what is there: %v", err)
	}
	again := &site{stateDir: filepath.Join(t.TempDir(), "state")}
	again.socket = filepath.Join(t.TempDir(), "api.sock")
	if err := restore(soon(t), restoreFlags{File: file, recordsFlags: recordsFlags{StateDir: again.stateDir}}, log); err != nil {
		t.Fatal(err)
	}
	again.start(t, flags{recordsFlags: recordsFlags{StateDir: again.stateDir}, Listen: "127.0.0.1:0", UnixSocket: again.socket, Lease: time.Second})
	// Its certificate is of the authority that was saved, and it takes the administrator's, who is not made anew.
	if _, err := umbrav1.NewAuditServiceClient(again.with(t, administrator)).ListAuditEvents(soon(t), &umbrav1.ListAuditEventsRequest{}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"administrator/key.pem", "audit.jsonl"} {
		was, err := os.ReadFile(filepath.Join(s.stateDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if is, err := os.ReadFile(filepath.Join(again.stateDir, name)); err != nil || string(is) != string(was) {
			t.Errorf("%s is another one, %v", name, err)
		}
	}
}

func TestNothingIsMadeOfADamagedBackup(t *testing.T) {
	file, dir := filepath.Join(t.TempDir(), "umbra.backup"), filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(file, []byte("this is none"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := restore(soon(t), restoreFlags{File: file, recordsFlags: recordsFlags{StateDir: dir}}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("it was restored")
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the state folder was made")
	}
}

func TestAControlPlaneDoesNotStartOnAHalfRestoredFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "RESTORE-NOT-FINISHED"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := flags{recordsFlags: recordsFlags{StateDir: dir}, UnixSocket: filepath.Join(dir, "s")}
	if err := run(soon(t), f, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "restore again") {
		t.Errorf("it says %v", err)
	}
}
