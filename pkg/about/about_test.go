package about

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

type line struct {
	Self
	Colour string   `help:"It's \\fBbold\\fR." env:"LAMP_COLOUR" default:"red"`
	Secret bool     `hidden:""`
	On     switchOn `cmd:"" help:"Light it."`
}

type switchOn struct {
	Lamp   string `arg:"" help:"The lamp."`
	Dimmed bool   `help:"Not fully."`
}

func (switchOn) Help() string {
	return `Then it is lit.

Examples:
  lamp on desk
  .hidden-lamp --dimmed

More.`
}

// typed parses one argument and returns what was written; the parser goes on after an exit, as for a caller that does not end.
func typed(t *testing.T, argument string) string {
	t.Helper()
	var out strings.Builder
	code := -1
	parser, err := kong.New(&line{}, kong.Name("lamp"), kong.Description("Lights: one at a time.\n\n.5 W is enough."), Vars("8"),
		kong.Writers(&out, &out), kong.Exit(func(c int) { code = c }))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = parser.Parse([]string{argument}) // no command is named, which does not matter
	if code != 0 {
		t.Errorf("%s ended with %d", argument, code)
	}
	return out.String()
}

func TestTheManualPageSaysWhatTheCommandTakes(t *testing.T) {
	want := `.SH "NAME"
\&lamp \- \&Lights
.SH "SYNOPSIS"
\fB\&lamp <command> [flags]\fR
.SH "DESCRIPTION"
\&One at a time.
.PP
\&.5 W is enough.
.SH "OPTIONS"
.TP
\fB\&\-h, \-\-help\fR
\&Show context\-sensitive help.
.TP
\fB\&\-\-version\fR
\&Show the version.
.TP
\fB\&\-\-colour="red"\fR
\&It's \efBbold\efR ($LAMP_COLOUR).
.SH "COMMANDS"
.SS "on <lamp> [flags]"
\&Light it.
.PP
\&Then it is lit.
.PP
\&Examples:
.RS "4"
.EX
\&lamp on desk
\&.hidden\-lamp \-\-dimmed
\&
.EE
.RE
\&More.
.TP
\fB\&<lamp>\fR
\&The lamp.
.TP
\fB\&\-\-dimmed\fR
\&Not fully.
.SH "SEE ALSO"
`
	title, page, _ := strings.Cut(typed(t, "--man"), "\n")
	if !strings.HasPrefix(title, `.TH "LAMP" "8" "" "Umbra `) || !strings.HasPrefix(page, want) {
		t.Errorf("the page is\n%s\n%s\nwant it to go on with\n%s", title, page, want)
	}
}

func TestTheVersionIsShown(t *testing.T) {
	if got := typed(t, "--version"); strings.TrimSpace(got) != Vars("8")["version"] {
		t.Errorf("--version shows %q", got)
	}
}
