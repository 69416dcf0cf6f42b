package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

type tokens struct {
	Create createToken `cmd:"" help:"Make one; it is printed this once."`
	List   listTokens  `cmd:"" help:"List them, also those that have expired. Themselves they are never shown."`
	Delete deleteToken `cmd:"" help:"End one, at once."`
}

// tokenOf says which token it is.
type tokenOf struct {
	Name string `arg:"" help:"What people call it; builds that it makes are by it."`
	Repo string `required:"" aliases:"repository" placeholder:"OWNER/NAME" help:"The repository it is bound to."`
}

// lifetime is how long something is good: days, or a duration.
type lifetime time.Duration

// UnmarshalText reads days such as 90d, or a duration such as 12h; never is 0.
func (l *lifetime) UnmarshalText(text []byte) error {
	if string(text) == "never" {
		*l = 0
		return nil
	}
	duration, err := time.ParseDuration(string(text))
	if days, inDays := strings.CutSuffix(string(text), "d"); inDays {
		var n int64
		n, err = strconv.ParseInt(days, 10, 16)
		duration = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || duration <= 0 {
		return errors.New("expected a time such as 90d or 12h, or never")
	}
	*l = lifetime(duration)
	return nil
}

type createToken struct {
	remote
	tokenOf
	Expires lifetime `default:"365d" placeholder:"TIME" help:"How long it is good, such as 90d or 12h, or never. Default: 365d."`
}

// Run makes a token.
func (c createToken) Run() error { return c.create(os.Stdout, os.Stderr, time.Now()) }

// create prints the token alone on out, so that it can go into a file, and what to do
// with it on hint.
func (c createToken) create(out, hint io.Writer, now time.Time) error {
	req := &schedulerv1.CreateRepositoryTokenRequest{Repository: c.Repo, Name: c.Name}
	if c.Expires != 0 {
		req.ExpireTime = timestamppb.New(now.Add(time.Duration(c.Expires)))
	}
	return c.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		answer, err := schedulerv1.NewRepositoryTokenServiceClient(conn).CreateRepositoryToken(ctx, req)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out, answer.GetSecret()); err != nil {
			return err
		}
		_, err = fmt.Fprintf(hint, "token %s of %s is made and not shown again; it makes builds by hand there: see forge builds create\n", c.Name, answer.GetToken().GetRepository())
		return err
	})
}

type listTokens struct {
	query
	Repo string `aliases:"repository" placeholder:"OWNER/NAME" help:"Only of this repository."`
}

// Run lists tokens.
func (l listTokens) Run() error {
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListRepositoryTokensResponse, err error) {
		all = &schedulerv1.ListRepositoryTokensResponse{}
		all.Tokens, _, err = upTo(math.MaxInt, func(size int32, token string) ([]*schedulerv1.RepositoryToken, string, error) {
			page, err := schedulerv1.NewRepositoryTokenServiceClient(conn).ListRepositoryTokens(ctx, &schedulerv1.ListRepositoryTokensRequest{
				Repository: l.Repo, PageSize: size, PageToken: token,
			})
			return page.GetTokens(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repo, len(all.GetTokens()), err)
	}, printTokens)
}

func printTokens(out io.Writer, all *schedulerv1.ListRepositoryTokensResponse) {
	if len(all.GetTokens()) == 0 {
		fmt.Fprintln(out, "no tokens") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"REPOSITORY", "NAME", "MADE", "LAST USED", "EXPIRES"}}
	for _, t := range all.GetTokens() {
		rows = append(rows, []string{
			t.GetRepository(), t.GetName(), localTime(t.GetCreateTime()), orNever(t.GetUseTime()), orNever(t.GetExpireTime()),
		})
	}
	printTable(out, rows)
}

func orNever(at *timestamppb.Timestamp) string {
	if at == nil {
		return "never"
	}
	return localTime(at)
}

type deleteToken struct {
	remote
	tokenOf
}

// Run ends a token.
func (d deleteToken) Run() error {
	return d.call(secretsWithin, func(ctx context.Context, conn grpc.ClientConnInterface) error {
		_, err := schedulerv1.NewRepositoryTokenServiceClient(conn).DeleteRepositoryToken(ctx, &schedulerv1.DeleteRepositoryTokenRequest{Repository: d.Repo, Name: d.Name})
		if err == nil {
			_, err = fmt.Fprintf(os.Stdout, "token %s of %s is deleted\n", d.Name, d.Repo)
		}
		return err
	})
}
