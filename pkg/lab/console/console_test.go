package console_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/umbra-dr/umbra/pkg/lab/console"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var record = regexp.MustCompile(`record (\d+)\n`)

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWaitGoesOnAfterTheLastMatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "record 1\nrecord 2\n")
	c := console.Open(path)
	for _, want := range []string{"1", "2"} {
		got, err := c.Wait(t.Context(), record)
		if err != nil {
			t.Fatal(err)
		}
		if got[1] != want {
			t.Fatalf("record %s, want %s", got[1], want)
		}
	}
}

func TestWaitSeesALogThatIsMadeLaterAndWrittenInPieces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	got := make(chan string)
	go func() {
		groups, err := console.Open(path).Wait(t.Context(), record)
		if err != nil {
			groups = []string{"", err.Error()}
		}
		got <- groups[1]
	}()
	for _, piece := range []string{"rec", "ord 4", "7\n"} {
		appendTo(t, path, piece)
	}
	if n := <-got; n != "47" {
		t.Fatalf("got %q, want 47", n)
	}
}

func TestWaitThatEndsWithItsContextSaysWhatCame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "Kernel panic")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := console.Open(path).Wait(ctx, record)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "Kernel panic") {
		t.Fatalf("error %v", err)
	}
}

func TestLogThatIsBegunAnewIsReadFromItsBeginning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	appendTo(t, path, "a longer first life\nrecord 1\n")
	c := console.Open(path)
	if err := c.SkipToEnd(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("record 9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.Wait(t.Context(), record)
	if err != nil || got[1] != "9" {
		t.Fatalf("got %v, %v", got, err)
	}
}
