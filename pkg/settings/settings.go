// Package settings lets a command's flags be given in a file and in the environment as well. A flag --data-listen is the setting
// data-listen of the file and UMBRA_DATA_LISTEN of the environment. What the command line says counts first, then the environment, then the
// file, then the default. There is no other schema than the flags, so what one place takes the others do, too.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "UMBRA_"

// Flags is the flag that names the file. A command embeds it among those that may stand in the file.
type Flags struct {
	Config string `help:"File with settings, YAML: the names of these flags, without the dashes before them." placeholder:"FILE"`
}

const fileFlag = "config"

// Settings is what a command's settings are, and where they may stand.
type Settings struct {
	// Default is the file that is read, if it is there, when none is named. Empty: none.
	Default string
	// Command is the sub-command whose flags are settings. Empty: those of the program itself, whatever its sub-command.
	Command string
}

// Option is for kong.New and kong.Parse. Flags may then have the types "period" and "address".
func (s Settings) Option() kong.Option {
	return kong.OptionFunc(func(k *kong.Kong) error {
		for name, mapper := range mappers {
			if err := kong.NamedMapper(name, mapper).Apply(k); err != nil {
				return err
			}
		}
		return errors.Join(
			kong.PostBuild(func(k *kong.Kong) error {
				s.nameVariables(k.Model)
				return nil
			}).Apply(k),
			kong.WithBeforeResolve(s.load).Apply(k),
			// kong itself says 80 for a flag and 1 for what load finds in the file.
			kong.Exit(func(code int) {
				if code != 0 {
					code = InvalidExit
				}
				os.Exit(code)
			}).Apply(k),
		)
	})
}

// node is where the flags are that are settings.
func (s Settings) node(app *kong.Application) *kong.Node {
	for _, child := range app.Children {
		if child.Name == s.Command {
			return child
		}
	}
	return app.Node
}

func (s Settings) flags(app *kong.Application) []*kong.Flag {
	var flags []*kong.Flag
	for _, flag := range s.node(app).Flags {
		switch flag.Name {
		case "help", "version", "man": // of one call, and of no other
		default:
			flags = append(flags, flag)
		}
	}
	return flags
}

// nameVariables gives a variable to each flag that has none.
func (s Settings) nameVariables(app *kong.Application) {
	for _, flag := range s.flags(app) {
		if flag.Name == fileFlag && s.Default != "" {
			flag.Help += " Without it, " + s.Default + ", if it is there."
		}
		if len(flag.Envs) == 0 {
			name := envPrefix + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
			flag.Envs, flag.Tag.Envs = []string{name}, []string{name}
		}
	}
}

// load reads the file, unless the command line is for a sub-command that has no settings.
func (s Settings) load(ctx *kong.Context) error {
	node, chosen := s.node(ctx.Model), false
	for _, path := range ctx.Path {
		chosen = chosen || path.Node() == node
	}
	if !chosen {
		return nil
	}
	flags := s.flags(ctx.Model)
	path, text, err := s.read(ctx)
	if err != nil {
		return err
	}
	values, err := parse(path, text, flags)
	if err = errors.Join(err, checkEnvironment(os.Environ(), flags)); err != nil {
		return err
	}
	ctx.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		if inEnvironment(flag) {
			return nil, nil //nolint:nilnil // what the environment says is the flag's value already
		}
		return values[flag], nil
	}))
	return nil
}

// read gets the file's text, which is empty when there is none and none was named.
func (s Settings) read(ctx *kong.Context) (path string, text []byte, err error) {
	path, named := s.Default, false
	for _, flag := range s.flags(ctx.Model) {
		if given, ok := ctx.FlagValue(flag).(string); ok && flag.Name == fileFlag && given != "" {
			path, named = given, true
		}
	}
	if path == "" {
		return "", nil, nil
	}
	text, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return path, nil, nil
	}
	if err != nil {
		return path, nil, fmt.Errorf("reading the settings: %w", err)
	}
	return path, text, nil
}

// Located is an error of a program that has read its command line. If it is about a setting, it begins with the place where that one
// was given: the flag, the variable, or file and line.
func (s Settings) Located(ctx *kong.Context, err error) error {
	var invalid *InvalidError
	if !errors.As(err, &invalid) || invalid.Setting == "" {
		return err
	}
	return Invalid(fmt.Errorf("%s: %w", s.place(ctx, invalid.Setting), invalid.Err))
}

func (s Settings) place(ctx *kong.Context, setting string) string {
	given := "--" + setting
	for _, path := range ctx.Path {
		if path.Flag != nil && path.Flag.Name == setting && !path.Resolved {
			return given
		}
	}
	for _, flag := range s.flags(ctx.Model) {
		if flag.Name == setting && inEnvironment(flag) {
			return flag.Envs[0]
		}
	}
	path, text, err := s.read(ctx)
	if err != nil {
		return given
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil || len(document.Content) == 0 {
		return given
	}
	for _, key := range document.Content[0].Content {
		if key.Value == setting {
			return fmt.Sprintf("%s:%d: %s", path, key.Line, setting)
		}
	}
	return given
}

func inEnvironment(flag *kong.Flag) bool {
	for _, name := range flag.Envs {
		if _, set := os.LookupEnv(name); set {
			return true
		}
	}
	return false
}
