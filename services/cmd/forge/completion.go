package main

import (
	_ "embed"
	"os"

	"github.com/alecthomas/kong"
)

//go:embed completion.bash
var bashCompletion string

//go:embed completion.zsh
var zshCompletion string

//go:embed completion.fish
var fishCompletion string

type completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help says what to do with what is printed.
func (completion) Help() string {
	return `To have it in every new shell:

  bash  echo 'source <(forge completion bash)' >>~/.bashrc
  zsh   forge completion zsh >"${fpath[1]}/_forge"
  fish  forge completion fish >~/.config/fish/completions/forge.fish

It completes verbs, flags and what these take; names of repositories and ids of builds it asks of the Forge that verbs ask.`
}

// Run prints what has a shell complete command lines of forge.
func (c completion) Run() error {
	text := map[string]string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[c.Shell]
	_, err := os.Stdout.WriteString(text)
	return err
}

// complete is what these scripts ask.
type complete struct {
	remote
	Words []string `arg:"" optional:"" passthrough:"" help:"The words of a command line, without forge; the last is what is to be completed."`
}

// Run prints what the last word can become: a line each, with a tab and a help where there
// is one. Where nothing is known, nothing is printed, and shells offer files.
func (c complete) Run(parsed *kong.Context) error {
	words := c.Words
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	for _, one := range completed(parsed.Model.Node, words, c.known) {
		line := one.value
		if one.help != "" {
			line += "\t" + one.help
		}
		if _, err := os.Stdout.WriteString(harmless(line) + "\n"); err != nil {
			return err
		}
	}
	return nil
}
