package main

import (
	"fmt"
	"os"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown by --help.
func (completionCommand) Help() string {
	return `Examples:
  source <(umbra completion bash)              # in ~/.bashrc
  source <(umbra completion zsh)               # in ~/.zshrc
  umbra completion fish | source               # in ~/.config/fish/config.fish`
}

// Each has the shell ask this command what could follow: with COMP_LINE in the environment it answers and does nothing else.
var completionScripts = map[string]string{
	"bash": "complete -C '%s' umbra\n",
	// It can be sourced, and it can be the file _umbra in a folder of $fpath, which is the function's first call.
	"zsh": `#compdef umbra
_umbra() {
    local -a found
    found=(${(f)"$(COMP_LINE="${(j: :)words[1,CURRENT]}" '%s')"})
    compadd -a found
}
if [[ $funcstack[1] = _umbra ]]; then _umbra "$@"; else compdef _umbra umbra; fi
`,
	"fish": `function __umbra_complete
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct); and set COMP_LINE "$COMP_LINE "
    '%s'
end
complete -f -c umbra -a "(__umbra_complete)"
`,
}

// Run prints the script.
func (co completionCommand) Run(at console) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this command: %w", err)
	}
	_, err = fmt.Fprintf(at.out, completionScripts[co.Shell], self)
	return err
}
