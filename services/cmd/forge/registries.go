package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type registries struct {
	Set    setRegistry    `cmd:"" help:"Set what builds of a repository pull images with; the password, or a token, is read from standard input, or asked for."`
	List   listRegistries `cmd:"" help:"List what is set for registries. Passwords are never shown."`
	Delete deleteRegistry `cmd:"" help:"Delete what is set for a registry."`
}

// registryOf says which registry it is, and whose.
type registryOf struct {
	Host        string `arg:"" help:"The registry as images name it, such as ghcr.io; docker.io for images that name none."`
	Repo        string `required:"" aliases:"repository" placeholder:"OWNER/NAME" help:"The repository whose builds pull with it."`
	Environment string `placeholder:"NAME" help:"Only for deploys to this environment, such as production."`
}

type setRegistry struct {
	remote
	registryOf
	Username string   `placeholder:"USER" help:"Whose password it is."`
	For      uses     `placeholder:"USE,…" help:"Which builds pull with it: pull-requests, pushes, tags, deploys, or names of environments. Default: pushes, tags and deploys, so not pull requests. A fork's never do."`
	Branches []string `sep:"," placeholder:"GLOB" help:"Only builds of these branches, or of what is merged into them, such as main or release/*."`
}

// Run sets it. A password is never an argument, which others on the machine could see.
func (s setRegistry) Run() error {
	password, err := readHidden(os.Stdin, os.Stderr, "Password for "+s.Host)
	if err != nil {
		return err
	}
	return s.set(os.Stdout, password)
}

func (s setRegistry) set(out io.Writer, password string) error {
	requests, err := eachReach(s.Environment, s.For, func(environment string, uses []schedulerv1.Secret_Use) *schedulerv1.SetRegistryCredentialsRequest {
		return &schedulerv1.SetRegistryCredentialsRequest{
			Repository: s.Repo, Environment: environment, Host: s.Host, Username: s.Username, Password: password, Uses: uses, Branches: s.Branches,
		}
	})
	if err != nil {
		return err
	}
	return s.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		for _, request := range requests {
			answer, err := schedulerv1.NewSecretServiceClient(conn).SetRegistryCredentials(ctx, request)
			if err != nil {
				return err
			}
			set := answer.GetCredentials()
			if _, err := fmt.Fprintf(out, "credentials of %s for %s are set for %s\n", s.Repo, set.GetHost(), reachOf(set)); err != nil {
				return err
			}
		}
		return nil
	})
}

type listRegistries struct {
	query
	Repo string `aliases:"repository" placeholder:"OWNER/NAME" help:"Only of this repository."`
}

// Run lists them.
func (l listRegistries) Run() error {
	return ask(l.query, secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListRegistryCredentialsResponse, err error) {
		all = &schedulerv1.ListRegistryCredentialsResponse{}
		all.Credentials, _, err = upTo(math.MaxInt, func(size int32, token string) ([]*schedulerv1.RegistryCredentials, string, error) {
			page, err := schedulerv1.NewSecretServiceClient(conn).ListRegistryCredentials(ctx, &schedulerv1.ListRegistryCredentialsRequest{
				Repository: l.Repo, PageSize: size, PageToken: token,
			})
			return page.GetCredentials(), page.GetNextPageToken(), err
		})
		return all, err
	}, printRegistries)
}

func printRegistries(out io.Writer, all *schedulerv1.ListRegistryCredentialsResponse) {
	if len(all.GetCredentials()) == 0 {
		fmt.Fprintln(out, "no credentials of registries") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"REPOSITORY", "REGISTRY", "USERNAME", "FOR", "SET"}}
	for _, one := range all.GetCredentials() {
		user := one.GetUsername()
		if user == "" {
			user = "-"
		}
		rows = append(rows, []string{one.GetRepository(), one.GetHost(), user, reachOf(one), one.GetUpdateTime().AsTime().Format(time.DateTime)})
	}
	printTable(out, rows)
}

type deleteRegistry struct {
	remote
	registryOf
}

// Run deletes what is set.
func (d deleteRegistry) Run() error { return d.delete(os.Stdout) }

func (d deleteRegistry) delete(out io.Writer) error {
	return d.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		_, err := schedulerv1.NewSecretServiceClient(conn).DeleteRegistryCredentials(ctx, &schedulerv1.DeleteRegistryCredentialsRequest{
			Repository: d.Repo, Environment: d.Environment, Host: d.Host,
		})
		if err != nil {
			return err
		}
		where := ""
		if d.Environment != "" {
			where = " for deploys to " + d.Environment
		}
		_, err = fmt.Fprintf(out, "credentials of %s for %s%s are deleted\n", d.Repo, d.Host, where)
		return err
	})
}
