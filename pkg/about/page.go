package about

import (
	"strings"

	"github.com/alecthomas/kong"
)

// page is the manual page of a command and its sub-commands, in the man macros of roff.
func page(app *kong.Application, section, version string) string {
	var roff strings.Builder
	first, more, _ := strings.Cut(app.Help, "\n")
	if sentence, rest, found := strings.Cut(first, ": "); found { // the name is for one line of `whatis`
		first, more = sentence, upperFirst(rest)+"\n"+more
	}
	macro(&roff, "TH", strings.ToUpper(app.Name), section, "", "Umbra "+version, "Umbra")
	macro(&roff, "SH", "NAME")
	_, _ = roff.WriteString(escape(app.Name) + ` \- ` + escape(strings.TrimSuffix(first, ".")) + "\n")
	macro(&roff, "SH", "SYNOPSIS")
	bold(&roff, app.Name+strings.TrimPrefix(app.Summary(), app.Name))
	macro(&roff, "SH", "DESCRIPTION")
	prose(&roff, more)
	if flags := shown(app.Flags); len(flags) > 0 {
		macro(&roff, "SH", "OPTIONS")
		options(&roff, flags)
	}
	if !app.Leaf() {
		macro(&roff, "SH", "COMMANDS")
	}
	for _, command := range app.Leaves(true) {
		macro(&roff, "SS", strings.TrimPrefix(command.Summary(), app.Name+" "))
		prose(&roff, command.Help+"\n\n"+command.Detail)
		for _, argument := range command.Positional {
			tagged(&roff, argument.Summary(), argument.Help)
		}
		options(&roff, shown(command.Flags))
	}
	macro(&roff, "SH", "SEE ALSO")
	prose(&roff, "The documents in /usr/share/doc/umbra, which the package umbra brings.")
	return roff.String()
}

func upperFirst(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

func shown(flags []*kong.Flag) []*kong.Flag {
	var visible []*kong.Flag
	for _, flag := range flags {
		if !flag.Hidden {
			visible = append(visible, flag)
		}
	}
	return visible
}

func options(roff *strings.Builder, flags []*kong.Flag) {
	for _, flag := range flags {
		tagged(roff, flag.String(), kong.DefaultHelpValueFormatter(flag.Value))
	}
}

func tagged(roff *strings.Builder, tag, text string) {
	macro(roff, "TP")
	bold(roff, tag)
	_, _ = roff.WriteString(escape(text) + "\n")
}

func bold(roff *strings.Builder, text string) {
	_, _ = roff.WriteString(`\fB` + escape(text) + `\fR` + "\n")
}

// prose is text as kong shows it: paragraphs with empty lines between them, and lines that are indented stay as they are.
func prose(roff *strings.Builder, text string) {
	example, between := false, false
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		indented := strings.HasPrefix(line, "  ")
		switch {
		case line == "" && !example:
			between = true
			continue
		case indented && !example:
			macro(roff, "RS", "4")
			macro(roff, "EX")
		case !indented && line != "" && example:
			macro(roff, "EE")
			macro(roff, "RE")
		case between:
			macro(roff, "PP")
		}
		example, between = indented || example && line == "", false
		_, _ = roff.WriteString(escape(strings.TrimPrefix(line, "  ")) + "\n")
	}
	if example {
		macro(roff, "EE")
		macro(roff, "RE")
	}
}

// macro is a line with a macro, its arguments quoted.
func macro(roff *strings.Builder, name string, arguments ...string) {
	_, _ = roff.WriteString("." + name)
	for _, argument := range arguments {
		_, _ = roff.WriteString(` "` + strings.ReplaceAll(roffEscapes.Replace(argument), `"`, `\(dq`) + `"`)
	}
	_, _ = roff.WriteString("\n")
}

var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`)

// escape is a line of text, which roff shows as it is, whatever it begins with.
func escape(line string) string { return `\&` + roffEscapes.Replace(line) }
