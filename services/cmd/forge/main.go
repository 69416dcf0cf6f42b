// Command forge is Forge in one process, and the tool of those who run it.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/forge-ci/forge/services/forgexec"
	"github.com/forge-ci/forge/services/scheduler/engines"
	"github.com/forge-ci/forge/services/settings"
)

// commands are the verbs, one file each.
type commands struct {
	Up           up           `cmd:"" help:"Run Forge: all four services in one process."`
	Demo         demo         `cmd:"" help:"Watch Forge test, merge and deploy on a simulated GitHub."`
	App          app          `cmd:"" help:"Make the GitHub App that this Forge is connected by."`
	RunHere      runHere      `cmd:"" name:"run" help:"Build the working tree here and now, as the server would, without any server."`
	Doctor       examine      `cmd:"" help:"Say what is wrong with this Forge, and how to mend it; exit with 1 where anything is broken."`
	Check        check        `cmd:"" help:"Say what is wrong with a .forge.yml, without any server."`
	Deliveries   deliveries   `cmd:"" help:"What GitHub sent, and what became of it: why was nothing built?"`
	Why          why          `cmd:"" help:"What became of a pull request, a commit, a build or a status: what was built, why it waits or failed, and if nothing was built, why."`
	Builds       builds       `cmd:"" help:"What was built, is and will be, and steer it."`
	Watch        watch        `cmd:"" help:"See what waits and runs, as it changes."`
	Logs         logs         `cmd:"" help:"Print the log of a build."`
	Shell        shell        `cmd:"" help:"Open a terminal, or run a command, in the kept container of a job that failed."`
	Tests        tests        `cmd:"" help:"What failed, is slow or flaky, of what builds report of their tests."`
	Schedules    schedules    `cmd:"" help:"What runs at times of the clock: when next, and what became of the last."`
	Webhooks     webhooks     `cmd:"" help:"Addresses that are told of builds and deploys: what they took, and why not."`
	Artifacts    artifacts    `cmd:"" help:"What builds have left: list and fetch it."`
	Caches       caches       `cmd:"" help:"What builds have cached: list and delete it."`
	Environments environments `cmd:"" help:"What is deployed where; freeze, unfreeze, roll back."`
	Reports      reports      `cmd:"" help:"What GitHub was told, or could not be told."`
	Recover      recovery     `cmd:"" help:"Have a running Forge look for webhooks that it missed."`
	Secrets      secrets      `cmd:"" help:"Set, list and delete the secrets that builds get."`
	Tokens       tokens       `cmd:"" help:"Make, list and delete tokens by which others ask for builds by hand."`
	Audit        auditLog     `cmd:"" help:"Who did what, and from where."`
	Backup       backUp       `cmd:"" help:"Copy the state of the Forge in the data directory, while it runs."`
	Restore      restore      `cmd:"" help:"Put such a copy into a data directory, whole or not at all."`
	Secret       secret       `cmd:"" help:"Make a secret for Forge's own settings."`
	Cert         cert         `cmd:"" help:"Make certificates."`
	MCP          modelContext `cmd:"" name:"mcp" help:"Serve builds, logs and tests to a model, by the Model Context Protocol on standard input and output."`
	Completion   completion   `cmd:"" help:"Print what has bash, zsh or fish complete command lines of forge."`
	Complete     complete     `cmd:"" hidden:"" help:"Say what a word of a command line can become."`
	Login        login        `cmd:"" help:"Sign in with GitHub at a Forge, and ask it as yourself from then on."`
	Logout       logout       `cmd:"" help:"Forget that, and end the token it was done by."`
	Health       health       `cmd:"" help:"Ask the Forge that runs here whether it serves; exit with 0 or 1."`
	Version      version      `cmd:"" help:"Print the version; of the Forge that runs, too, and whether its services fit together."`
}

func main() { os.Exit(run()) }

// run returns the exit code.
func run() int {
	// The engines fall back on this where no forgexec lies beside forge. It reads
	// no settings: what it finds in its environment is an attempt's.
	if len(os.Args) > 1 && os.Args[1] == "forgexec" {
		return forgexec.Main(context.Background(), os.Args[2:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	}
	var verbs commands
	verb, err := settings.Parse(&verbs, filepath.Base(os.Args[0]), "CI/CD for a GitHub App on your own machines.",
		"127.0.0.1:9090", engines.Names())
	if err != nil {
		err = usageError{err}
	} else {
		err = verb.Run()
	}
	if err != nil {
		if text := complaint(err); text != "" {
			fmt.Fprintln(os.Stderr, "forge:", harmless(text))
		}
	}
	return exitCode(err)
}
