package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/alecthomas/kong"
)

// checkEnvironment finds what is wrong in the environment and would pass unnoticed, or be reported as a flag's error: a variable that is
// nearly one of the program's, and a value that is none of those that there are. Other variables that begin as ours are not this program's.
func checkEnvironment(environment []string, flags []*kong.Flag) error {
	var wrong []error
	for _, pair := range environment {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		at := slices.IndexFunc(flags, func(f *kong.Flag) bool { return slices.Contains(f.Envs, name) })
		switch {
		case at < 0:
			if meant := nearest(name, flags); meant != "" {
				wrong = append(wrong, fmt.Errorf("%s: there is no such variable, did you mean %s?", name, meant))
			}
		case flags[at].Enum != "" && !flags[at].EnumMap()[value]:
			wrong = append(wrong, fmt.Errorf("%s: it must be one of %s, and is %q", name, strings.Join(flags[at].EnumSlice(), ", "), value))
		}
	}
	return errors.Join(wrong...)
}

// nearest is the variable that a name was probably meant to be, or empty. What other programs read is further off than that.
func nearest(name string, flags []*kong.Flag) string {
	name = strings.TrimPrefix(name, envPrefix)
	for _, flag := range flags {
		for _, variable := range flag.Envs {
			of := strings.TrimPrefix(variable, envPrefix)
			if strings.ReplaceAll(of, "_", "") == strings.ReplaceAll(name, "_", "") || levenshtein.Distance(of, name, nil) <= min(2, len(of)/5) {
				return variable
			}
		}
	}
	return ""
}
