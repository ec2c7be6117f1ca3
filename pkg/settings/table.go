package settings

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Table is the documentation of all settings, as rows of a table in Markdown.
func (s Settings) Table(app *kong.Application) string {
	var rows strings.Builder
	_, _ = rows.WriteString("| setting | environment | default | what |\n|---|---|---|---|\n") // never fails
	for _, flag := range s.flags(app) {
		otherwise := ""
		switch {
		case flag.Required:
			otherwise = "required"
		case flag.Default != "":
			otherwise = "`" + flag.Default + "`"
		}
		name := flag.Name
		if name == fileFlag {
			name = "(`--config`)"
		} else {
			name = "`" + name + "`"
		}
		_, _ = fmt.Fprintf(&rows, "| %s | `%s` | %s | %s |\n", name, strings.Join(flag.Envs, "`, `"), otherwise, strings.ReplaceAll(flag.OrigHelp, "|", `\|`))
	}
	return rows.String()
}
