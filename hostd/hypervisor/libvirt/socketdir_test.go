package libvirt

import (
	"os"
	"path/filepath"
	"testing"

	rpc "github.com/digitalocean/go-libvirt"
)

func TestTheSocketIsMadeInTheServersOwnFolder(t *testing.T) {
	servers, err := os.MkdirTemp("", "umbra") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(servers) })
	for _, folder := range []string{"domain-1-web", "domain-1-we", "domain-1-other", "domain-11-web", "domain-2-a-name-of-over-twent", "domain-3-ledger"} {
		if err := os.MkdirAll(filepath.Join(servers, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(servers, "domain-4-file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   int32
		name string
		want string // "": the job's
	}{
		{1, "web", "domain-1-web"}, // "we" and "other" had that id before the host lost its power
		{11, "web", "domain-11-web"},
		{2, "a-name-of-over-twenty-characters", "domain-2-a-name-of-over-twent"},
		{3, "led", ""},
		{4, "file", ""},
		{5, "web", ""},
	} {
		want := "/run/job"
		if c.want != "" {
			want = filepath.Join(servers, c.want)
		}
		if got := socketDir(servers, rpc.Domain{ID: c.id, Name: c.name}, "/run/job"); got != want {
			t.Errorf("server %d, %q: %s, want %s", c.id, c.name, got, want)
		}
	}
	long := rpc.Domain{ID: 6, Name: "ééééééééééééééééééééé"}
	deep := filepath.Join(servers, "a-folder-that-leaves-no-room-for-a-socket-below-it-whatever-its-name-is")
	if err := os.MkdirAll(filepath.Join(deep, "domain-6-éééééééééééééééééééé"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := socketDir(deep, long, "/run/job"); got != "/run/job" {
		t.Errorf("a socket has no room in %s", got)
	}
}
