// Package about lets a command say what it is: --version, and --man, its manual page. Both come from the flags and sub-commands
// themselves, so that they cannot say anything else than the command does.
package about

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/umbra-dr/umbra/pkg/telemetry"
)

// Self is what a command embeds at its root.
type Self struct {
	Version kong.VersionFlag `help:"Show the version."`
	Man     manual           `hidden:""`
}

// Vars is for kong.New and kong.Parse: what Self shows, for a page in that section of the manual.
func Vars(section string) kong.Vars {
	return kong.Vars{"version": telemetry.ReadBuild().Version, "section": section}
}

type manual bool

// BeforeReset writes the page instead of what was asked for, as kong.VersionFlag does with the version.
func (manual) BeforeReset(app *kong.Kong, vars kong.Vars) error {
	_, err := fmt.Fprint(app.Stdout, page(app.Model, vars["section"], vars["version"]))
	app.Exit(0)
	return err
}
