package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/dustin/go-humanize"
	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type caches struct {
	List   listCaches   `cmd:"" default:"withargs" help:"List what builds have cached, in each repository the one used last first."`
	Delete deleteCaches `cmd:"" help:"Delete caches of a repository; builds that come save them anew."`
}

type listCaches struct {
	query
	Repo  string `aliases:"repository" placeholder:"OWNER/NAME" help:"Only of this repository, and how much room all its caches take."`
	Limit count  `default:"50" help:"At most this many."`
}

// Run prints a line a cache.
func (l listCaches) Run() error {
	all, err := l.fetch()
	if err != nil {
		return err
	}
	return l.print(all, func(out io.Writer) { printCaches(out, l.Repo, all) })
}

// fetch gets as many pages as are wanted in one.
func (l listCaches) fetch() (*schedulerv1.ListCachesResponse, error) {
	all := &schedulerv1.ListCachesResponse{}
	// GitHub may be asked which repository is meant.
	return all, l.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (err error) {
		all.Caches, all.NextPageToken, err = upTo(l.Limit, func(most int32, token string) ([]*schedulerv1.Cache, string, error) {
			page, err := schedulerv1.NewCacheServiceClient(conn).ListCaches(ctx, &schedulerv1.ListCachesRequest{
				Repository: l.Repo, PageSize: most, PageToken: token,
			})
			all.StoredBytes = page.GetStoredBytes()
			return page.GetCaches(), page.GetNextPageToken(), err
		})
		return heardOf(ctx, conn, l.Repo, len(all.GetCaches()), err)
	})
}

func printCaches(out io.Writer, repository string, all *schedulerv1.ListCachesResponse) {
	if len(all.GetCaches()) == 0 {
		fmt.Fprintln(out, "no caches") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"REPOSITORY", "KEY", "SCOPE", "FILES", "SIZE", "SAVED", "USED"}}
	for _, c := range all.GetCaches() {
		rows = append(rows, []string{
			c.GetRepository(), c.GetKey(), c.GetScope(), strconv.FormatInt(c.GetFiles(), 10), size(c.GetSize()), localTime(c.GetCreateTime()), localTime(c.GetUseTime()),
		})
	}
	printTable(out, rows)
	if repository != "" {
		fmt.Fprintf(out, "All caches of %s take %s as they are stored.\n", repository, size(all.GetStoredBytes())) //nolint:errcheck // out is memory
	}
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

type deleteCaches struct {
	remote
	KeyPrefix string `arg:"" optional:"" help:"Those whose keys begin so."`
	Repo      string `required:"" aliases:"repository" placeholder:"OWNER/NAME" help:"The repository they belong to."`
	Scope     string `placeholder:"SCOPE" help:"Only those of this scope, as the list names it, such as pull/7."`
	All       bool   `help:"All of the repository, or of the scope."`
}

// Run deletes caches.
func (d deleteCaches) Run() error { return d.delete(os.Stdout) }

func (d deleteCaches) delete(out io.Writer) error {
	switch {
	case d.All && d.KeyPrefix != "":
		return usagef("--all is of every key: leave it out, or the beginning of the keys")
	case !d.All && d.KeyPrefix == "" && d.Scope == "":
		return usagef("which caches? Name the beginning of their keys or their --scope, as forge caches list --repo %s shows them, or say --all", d.Repo)
	}
	return d.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		answer, err := schedulerv1.NewCacheServiceClient(conn).DeleteCaches(ctx, &schedulerv1.DeleteCachesRequest{
			Repository: d.Repo, KeyPrefix: d.KeyPrefix, Scope: d.Scope,
		})
		if err == nil {
			_, err = fmt.Fprintf(out, "%s of %s deleted\n", wording.Count(int(answer.GetCount()), "cache"), d.Repo)
		}
		return err
	})
}
