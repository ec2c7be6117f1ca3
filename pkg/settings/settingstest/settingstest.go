// Package settingstest keeps docs/configuration.md true.
package settingstest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/pkg/settings"
)

// Documented fails unless the page has the table of the program's settings, between two comments with the program's name. With
// UPDATE_DOCS in the environment it writes the table there.
func Documented(t *testing.T, page, program string, of settings.Settings, flags any) {
	t.Helper()
	parser, err := kong.New(flags, kong.Name(program), of.Option())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- settings of "+program+" -->\n", "<!-- end of "+program+" -->\n"
	before, rest, found := strings.Cut(string(text), begin)
	was, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the settings of %s", page, program)
	}
	is := of.Table(parser.Model)
	switch {
	case was == is:
	case os.Getenv("UPDATE_DOCS") != "":
		if err := os.WriteFile(page, []byte(before+begin+is+end+after), 0o644); err != nil { //nolint:gosec // a page of the project
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has other settings of %s than there are; UPDATE_DOCS=1 go test here mends it. There are\n%s", page, program, is)
	}
}

// Complete fails unless the file has all that the program needs, once the settings that it offers ("#name: value") are filled in.
func Complete(t *testing.T, file string, of settings.Settings, flags any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	filled := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(filled, offered.ReplaceAll(text, []byte("$1")), 0o600); err != nil {
		t.Fatal(err)
	}
	parser, err := kong.New(flags, of.Option())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"--config", filled}); err != nil {
		t.Error(err)
	}
}

var offered = regexp.MustCompile(`(?m)^#([a-z])`)
