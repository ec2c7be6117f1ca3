package embedded_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/controlplane/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStateOutlivesTheProcess(t *testing.T) {
	directory := t.TempDir()
	client, stop, err := embedded.Start(t.Context(), directory, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Put(t.Context(), "key", "value"); err != nil {
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	client, stop, err = embedded.Start(t.Context(), directory, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Get(t.Context(), "key")
	if err != nil || len(response.Kvs) != 1 || string(response.Kvs[0].Value) != "value" {
		t.Fatalf("got %v, %v after a restart", response, err)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
}

func TestADirectoryInUseIsAnErrorAtOnce(t *testing.T) {
	directory := t.TempDir()
	_, stop, err := embedded.Start(t.Context(), directory, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}()
	if _, _, err := embedded.Start(t.Context(), directory, testLog(t)); err == nil {
		t.Fatal("a second node started in the same directory")
	}
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
