package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type secrets struct {
	Set    setSecret    `cmd:"" help:"Set a secret; its value is read from standard input, or asked for."`
	List   listSecrets  `cmd:"" help:"List the names of secrets. Values are never shown."`
	Delete deleteSecret `cmd:"" help:"Delete a secret."`

	Registry registries `cmd:"" help:"Set, list and delete what images are pulled with."`
}

// secretsWithin leaves GitHub time to be asked which repository is meant.
const secretsWithin = time.Minute

// secretOf says which secret it is.
type secretOf struct {
	Name        string `arg:"" help:"The variable that builds have it in."`
	Repo        string `required:"" aliases:"repository" placeholder:"OWNER/NAME" help:"The repository it belongs to."`
	Environment string `placeholder:"NAME" help:"Only for deploys to this environment, such as production."`
}

func (s secretOf) String() string {
	if s.Environment == "" {
		return fmt.Sprintf("secret %s of %s", s.Name, s.Repo)
	}
	return fmt.Sprintf("secret %s of %s for %s", s.Name, s.Repo, s.Environment)
}

type setSecret struct {
	remote
	secretOf
	For      uses     `placeholder:"USE,…" help:"Which builds get it: pull-requests, pushes, tags, deploys, or names of environments, such as production, for deploys there alone. Default: pushes, tags and deploys, so not pull requests."`
	Branches []string `sep:"," placeholder:"GLOB" help:"Only builds of these branches, or of what is merged into them, such as main or release/*."`
}

// Run sets a secret. Its value is never an argument, which others on the machine
// could see.
func (s setSecret) Run() error {
	value, err := readSecret(os.Stdin, os.Stderr, s.Name)
	if err != nil {
		return err
	}
	return s.set(os.Stdout, value)
}

// set sets the secret once for the builds that have no environment of their own in
// --for, and once for each environment.
func (s setSecret) set(out io.Writer, value string) error {
	requests, err := s.requests(value)
	if err != nil {
		return err
	}
	return s.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		warning := ""
		for _, request := range requests {
			answer, err := schedulerv1.NewSecretServiceClient(conn).SetSecret(ctx, request)
			if err != nil {
				return err
			}
			warning = answer.GetWarning()
			if _, err := fmt.Fprintf(out, "secret %s of %s is set for %s\n", s.Name, s.Repo, reachOf(answer.GetSecret())); err != nil {
				return err
			}
		}
		if warning == "" {
			return nil
		}
		_, err := io.WriteString(out, "mind: "+warning+"\n")
		return err
	})
}

func (s setSecret) requests(value string) ([]*schedulerv1.SetSecretRequest, error) {
	return eachReach(s.Environment, s.For, func(environment string, uses []schedulerv1.Secret_Use) *schedulerv1.SetSecretRequest {
		return &schedulerv1.SetSecretRequest{Repository: s.Repo, Environment: environment, Name: s.Name, Value: value, Uses: uses, Branches: s.Branches}
	})
}

// knownUses are the words of --for, besides names of environments.
const knownUses = "pull-requests, pushes, tags, deploys, staging or production"

// uses are the words of --for, with commas between them or said one by one.
type uses []string

// UnmarshalText refuses none, which would be the default, and not what was meant.
func (u *uses) UnmarshalText(text []byte) error {
	if strings.TrimSpace(string(text)) == "" {
		return errors.New("expected " + knownUses)
	}
	*u = append(*u, strings.Split(string(text), ",")...)
	return nil
}

// eachReach makes a request for the builds that have no environment of their own among the
// words of --for, and one for each environment.
func eachReach[R any](environment string, words []string, request func(environment string, uses []schedulerv1.Secret_Use) R) ([]R, error) {
	if environment != "" {
		if len(words) > 0 {
			return nil, usagef("--environment and --for say the same: use --for")
		}
		return []R{request(environment, nil)}, nil
	}
	var uses []schedulerv1.Secret_Use
	var all []R
	for _, word := range words {
		use, isUse := schedulerv1.Secret_Use_value["USE_"+strings.ToUpper(strings.ReplaceAll(word, "-", "_"))]
		switch {
		case isUse && use != 0:
			uses = append(uses, schedulerv1.Secret_Use(use))
		case namesEnvironment(word):
			all = append(all, request(word, nil))
		default:
			return nil, usagef("--for %s: expected %s; or --environment %s for an environment that is called so", word, knownUses, word)
		}
	}
	if len(uses) > 0 || len(all) == 0 {
		all = append(all, request("", uses))
	}
	return all, nil
}

// namesEnvironment reports whether a word can only be meant as the name of an
// environment: it begins as no other word does that --for takes.
func namesEnvironment(word string) bool {
	const enough = 3
	for _, use := range []string{"pull-requests", "pushes", "tags", "deploys"} {
		if strings.HasPrefix(use, strings.ToLower(word)[:min(len(word), enough)]) {
			return false
		}
	}
	return true
}

// reaching is what is kept for some builds.
type reaching interface {
	GetEnvironment() string
	GetUses() []schedulerv1.Secret_Use
	GetBranches() []string
}

// reachOf says which builds get a secret.
func reachOf(secret reaching) string {
	where := "deploys to " + secret.GetEnvironment()
	if secret.GetEnvironment() == "" {
		var uses []string
		for _, use := range secret.GetUses() {
			uses = append(uses, wording.Value(use))
		}
		where = strings.Join(uses, ", ")
		if len(uses) == len(schedulerv1.Secret_Use_name)-1 {
			where = "every build"
		}
	}
	if len(secret.GetBranches()) > 0 {
		where += " of " + strings.Join(secret.GetBranches(), ", ")
	}
	return where
}

// readSecret asks a person without showing what is typed, and reads from anything
// else to its end. The line end after a single line is echo's.
func readSecret(in *os.File, out io.Writer, name string) (string, error) {
	return readHidden(in, out, "Value of "+name)
}

func readHidden(in *os.File, out io.Writer, what string) (string, error) {
	if term.IsTerminal(int(in.Fd())) {
		if _, err := fmt.Fprintf(out, "%s: ", what); err != nil {
			return "", err
		}
		typed, err := typeHidden(in)
		_, _ = fmt.Fprintln(out) // the one typed was not shown either
		return typed, err
	}
	const most = 1 << 20 // what is too large is refused by Forge
	text, err := io.ReadAll(io.LimitReader(in, most))
	value := string(text)
	if line, ok := strings.CutSuffix(value, "\n"); ok && !strings.Contains(line, "\n") {
		value = strings.TrimSuffix(line, "\r")
	}
	return value, err
}

type listSecrets struct {
	query
	Repo string `aliases:"repository" placeholder:"OWNER/NAME" help:"Only of this repository."`
}

// Run lists secrets.
func (l listSecrets) Run() error {
	all, err := l.fetch()
	if err != nil {
		return err
	}
	return l.print(all, func(out io.Writer) { printSecrets(out, all) })
}

// fetch gets all pages in one.
func (l listSecrets) fetch() (*schedulerv1.ListSecretsResponse, error) {
	all := &schedulerv1.ListSecretsResponse{}
	return all, l.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		all.Secrets, _, err = upTo(math.MaxInt, func(size int32, token string) ([]*schedulerv1.Secret, string, error) {
			page, err := schedulerv1.NewSecretServiceClient(conn).ListSecrets(ctx, &schedulerv1.ListSecretsRequest{
				Repository: l.Repo, PageSize: size, PageToken: token,
			})
			return page.GetSecrets(), page.GetNextPageToken(), err
		})
		return err
	})
}

func printSecrets(out io.Writer, all *schedulerv1.ListSecretsResponse) {
	if len(all.GetSecrets()) == 0 {
		fmt.Fprintln(out, "no secrets") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"REPOSITORY", "NAME", "FOR", "SET"}}
	for _, secret := range all.GetSecrets() {
		rows = append(rows, []string{secret.GetRepository(), secret.GetName(), reachOf(secret), secret.GetUpdateTime().AsTime().Format(time.DateTime)})
	}
	printTable(out, rows)
}

type deleteSecret struct {
	remote
	secretOf
}

// Run deletes a secret.
func (d deleteSecret) Run() error { return d.delete(os.Stdout) }

func (d deleteSecret) delete(out io.Writer) error {
	return d.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		_, err := schedulerv1.NewSecretServiceClient(conn).DeleteSecret(ctx, &schedulerv1.DeleteSecretRequest{
			Repository: d.Repo, Environment: d.Environment, Name: d.Name,
		})
		if err == nil {
			_, err = fmt.Fprintln(out, d.secretOf.String(), "is deleted")
		}
		return err
	})
}
