package settings

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// program is one with a daemon, which has settings, and an errand, which has none.
type program struct {
	Serve struct {
		Flags
		HostID  string        `required:""`
		Peer    []string      ``
		Lease   time.Duration `default:"15s" type:"period"`
		Listen  string        `type:"address"`
		Max     int64         `default:"4" type:"positive"`
		Level   slog.Level    `default:"INFO" type:"level"`
		Planes  []Address
		Traces  bool
		Format  string `enum:"json,text" default:"json"`
		TLSCert string `and:"tls"`
		TLSKey  string `and:"tls"`
	} `cmd:"" default:"withargs"`
	Errand struct {
		HostID string
	} `cmd:""`
}

// settled runs a command line with a file of that text.
func settled(t *testing.T, text string, args ...string) (program, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var p program
	parser, err := kong.New(&p, Settings{Default: path, Command: "serve"}.Option())
	if err != nil {
		t.Fatal(err)
	}
	_, err = parser.Parse(args)
	if err != nil {
		err = &located{strings.ReplaceAll(err.Error(), path, "host.yaml")}
	}
	return p, err
}

// located is an error without the name of the test's folder.
type located struct{ text string }

func (l *located) Error() string { return l.text }

func TestTheCommandLineCountsBeforeTheEnvironmentBeforeTheFileBeforeTheDefault(t *testing.T) {
	text := "# of a host\nhost-id: file\nlease: 1m\nmax: 5\npeer: [a, b]\ntraces: true\nformat: text\ntls-cert: c\ntls-key: k\n"
	t.Setenv("UMBRA_HOST_ID", "environment")
	t.Setenv("UMBRA_LEASE", "2m")
	p, err := settled(t, text, "--lease", "3m")
	if err != nil {
		t.Fatal(err)
	}
	s := p.Serve
	if s.Lease != 3*time.Minute || s.HostID != "environment" || s.Max != 5 || !reflect.DeepEqual(s.Peer, []string{"a", "b"}) || !s.Traces ||
		s.Format != "text" || s.TLSCert != "c" {
		t.Errorf("it is %+v", s)
	}
	if p, err = settled(t, "host-id: file\npeer: one\n"); err != nil || p.Serve.Lease != 2*time.Minute || !reflect.DeepEqual(p.Serve.Peer, []string{"one"}) || p.Serve.Max != 4 {
		t.Errorf("it is %+v, %v", p.Serve, err)
	}
}

func TestAnErrorNamesFileAndLine(t *testing.T) {
	for _, of := range []struct{ text, want string }{
		{"host-id: a\nhots: b\n", `host.yaml:2: hots: there is no such setting`},
		{"host-id: a\n\nlease: soon\n", `host.yaml:3: lease: expected duration but got "soon"`},
		{"host-id: a\nlease: 15\n", `host.yaml:2: lease: expected duration but got "15"`},
		{"host-id: a\nlease: -1s\n", `host.yaml:2: lease: it must be longer than 0, and is -1s`},
		{"host-id: a\nlease: 0s\n", `host.yaml:2: lease: it must be longer than 0, and is 0s`},
		{"host-id: a\nlisten: here\n", `host.yaml:2: listen: expected ADDRESS:PORT: address here: missing port in address`},
		{"host-id: a\nmax: many\n", `host.yaml:2: max: expected a valid 64 bit int but got "many"`},
		{"host-id: a\nmax: 0\n", `host.yaml:2: max: it must be higher than 0, and is 0`},
		{"host-id: a\nlevel: LOUD\n", `host.yaml:2: level: it must be one of DEBUG, INFO, WARN, ERROR, and is "LOUD"`},
		{"host-id: a\nplanes: [a:1, b]\n", `host.yaml:2: planes: expected ADDRESS:PORT: address b: missing port in address`},
		{"host-id: a\npeer: []\n", `host.yaml:2: peer: it has no value`},
		{"host-id: [a, b]\n", `host.yaml:1: host-id: expected a single value`},
		{"host-id: {a: b}\n", `host.yaml:1: host-id: expected a single value`},
		{"host-id: a\npeer: {a: b}\n", `host.yaml:2: peer: expected a value, or a list of values`},
		{"host-id: a\npeer:\n  - a\n  - [b]\n", `host.yaml:2: peer: expected a list of plain values; line 4 is not one`},
		{"host-id: a\ntraces: perhaps\n", `host.yaml:2: traces: bool value must be true`},
		{"host-id: a\nformat: xml\n", `host.yaml:2: format: it must be one of json, text, and is "xml"`},
		{"host-id: a\nhost-id: b\n", `host.yaml:2: host-id: it is there twice`},
		{"host-id:\n", `host.yaml:1: host-id: it has no value`},
		{"host-id: a\nconfig: other.yaml\n", `host.yaml:2: config: there is no such setting`},
		{"- host-id\n", `host.yaml:1: expected lines of the form "setting: value"`},
		{"host-id: a\n  lease: [\n", `host.yaml: yaml: line 2`},
		{"max: many\nhots: b\n", "host.yaml:1: max: expected a valid 64 bit int but got \"many\"\nhost.yaml:2: hots"},
		{"lease: 1m\n", `missing flags: --host-id=STRING`},
		{"host-id: a\ntls-cert: c\n", `--tls-key`},
	} {
		_, err := settled(t, of.text)
		if err == nil || !strings.Contains(err.Error(), of.want) {
			t.Errorf("%q gives\n%v\ninstead of\n%s", of.text, err, of.want)
		}
	}
}

func TestAnErrorNamesTheVariable(t *testing.T) {
	for _, of := range []struct{ name, value, want string }{
		{"UMBRA_HOSTID", "a", "UMBRA_HOSTID: there is no such variable, did you mean UMBRA_HOST_ID?"},
		{"UMBRA_HOT_ID", "a", "did you mean UMBRA_HOST_ID?"},
		{"UMBRA_LEASES", "1m", "did you mean UMBRA_LEASE?"},
		{"UMBRA_FORMAT", "xml", `UMBRA_FORMAT: it must be one of json, text, and is "xml"`},
		{"UMBRA_MAX", "0", "it must be higher than 0, and is 0"},
		{"UMBRA_SERVER", "another program's", ""},
		{"UMBRA_HOST_ID", "a", ""},
	} {
		t.Run(of.name, func(t *testing.T) {
			t.Setenv(of.name, of.value)
			_, err := settled(t, "host-id: a\n")
			switch {
			case of.want == "" && err == nil:
			case err == nil || of.want == "" || !strings.Contains(err.Error(), of.want) || !strings.Contains(err.Error(), of.name):
				t.Errorf("it gives %v instead of %s", err, of.want)
			}
		})
	}
}

// All programs may run in one environment.
func TestNoProgramsVariableIsTakenForAnothersMisspelled(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var flags []*kong.Flag
	for _, row := range regexp.MustCompile("(?m)^\\| .* \\| `(UMBRA_\\w+)` \\|").FindAllStringSubmatch(string(page), -1) {
		flags = append(flags, &kong.Flag{Value: &kong.Value{Tag: &kong.Tag{}}, Envs: row[1:]})
	}
	if len(flags) < 40 {
		t.Fatalf("the page has %d variables", len(flags))
	}
	for _, flag := range flags {
		for _, other := range flags {
			if name := flag.Envs[0]; name != other.Envs[0] && nearest(name, []*kong.Flag{other}) != "" {
				t.Errorf("%s is taken for %s", name, other.Envs[0])
			}
		}
	}
}

func TestWhatIsFoundWrongLaterIsLocatedToo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "host.yaml")
	if err := os.WriteFile(file, []byte("# of a host\nhost-id: a\nlisten: a:1\nmax: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("UMBRA_MAX", "5")
	own := Settings{Default: file, Command: "serve"}
	parser, err := kong.New(&program{}, own.Option())
	if err != nil {
		t.Fatal(err)
	}
	given, err := parser.Parse([]string{"--lease=1m"})
	if err != nil {
		t.Fatal(err)
	}
	for setting, want := range map[string]string{
		"listen": file + ":3: listen: it is taken", "max": "UMBRA_MAX: it is taken", "lease": "--lease: it is taken", "format": "--format: it is taken",
	} {
		found := own.Located(given, fmt.Errorf("starting: %w", InvalidAt(setting, errors.New("it is taken"))))
		if found.Error() != want || ExitCode(found) != InvalidExit {
			t.Errorf("%s: %v instead of %s", setting, found, want)
		}
	}
}

func TestAFileThatIsNamedMustBeThereAndTheDefaultOneNeedNot(t *testing.T) {
	var p program
	parser, err := kong.New(&p, Settings{Default: "/nonexistent/host.yaml", Command: "serve"}.Option())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse([]string{"--host-id", "a"}); err != nil {
		t.Error(err)
	}
	for _, named := range []func() []string{
		func() []string { return []string{"--config", "/nonexistent/x.yaml"} },
		func() []string { t.Setenv("UMBRA_CONFIG", "/nonexistent/x.yaml"); return nil },
	} {
		if _, err := parser.Parse(append(named(), "--host-id", "a")); err == nil || !strings.Contains(err.Error(), "/nonexistent/x.yaml") {
			t.Errorf("a file that is named and not there gives %v", err)
		}
	}
}

func TestAnErrandTakesNoSettings(t *testing.T) {
	t.Setenv("UMBRA_HOST_ID", "environment")
	if p, err := settled(t, "this is: [no file of settings\n", "errand"); err != nil || p.Errand.HostID != "" {
		t.Errorf("it is %+v, %v", p.Errand, err)
	}
}

// A unit that starts the program again and again would hide what is wrong.
func TestSettingsThatAreNotValidEndTheProgramWithTheCodeThatUnitsKnow(t *testing.T) {
	for _, test := range []struct {
		text string
		args []string
		want int
	}{
		{"host-id: a\n", nil, 0},
		{"", nil, InvalidExit},
		{"host-id: a\n", []string{"--no-such-flag"}, InvalidExit},
		{"host-id: a\nno-such-setting: b\n", nil, InvalidExit},
		{"host-id: a\nlease: soon\n", nil, InvalidExit},
		{"host-id: [\n", nil, InvalidExit},
		{"host-id: a\n", []string{"--config", "/nonexistent.yaml"}, InvalidExit},
	} {
		file := filepath.Join(t.TempDir(), "host.yaml")
		if err := os.WriteFile(file, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		run := exec.CommandContext(t.Context(), os.Args[0], test.args...)
		run.Env = append(os.Environ(), asProgram+"="+file)
		said, err := run.CombinedOutput()
		if run.ProcessState == nil {
			t.Fatal(err)
		}
		if got := run.ProcessState.ExitCode(); got != test.want {
			t.Errorf("%q, %q: exit code %d, want %d: %s", test.text, test.args, got, test.want, said)
		}
	}
}
