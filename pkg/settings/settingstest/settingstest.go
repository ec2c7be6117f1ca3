// Package settingstest keeps docs/configuration.md true.
package settingstest

import (
	"os"
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

// Complete fails unless the file alone says all that the program needs.
func Complete(t *testing.T, file string, of settings.Settings, flags any) {
	t.Helper()
	parser, err := kong.New(flags, of.Option())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"--config", file}); err != nil {
		t.Error(err)
	}
}
