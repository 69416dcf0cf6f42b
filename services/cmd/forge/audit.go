package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/wording"
)

type auditLog struct {
	query
	Repository string `aliases:"repo" placeholder:"OWNER/NAME" help:"Only this repository."`
	By         string `placeholder:"LOGIN" help:"Only what this one did."`
	Action     string `placeholder:"ACTION" help:"Only this action, such as approve, deploy, freeze, set_secret."`
	Since      ago    `placeholder:"DURATION" help:"Only within this time, such as 72h."`
	Limit      count  `default:"20" help:"At most this many."`
}

// Run prints a line an entry.
func (l auditLog) Run() error {
	req := &schedulerv1.ListAuditEntriesRequest{Repository: l.Repository, Actor: l.By, Since: l.Since.timestamp()}
	if l.Action != "" {
		number, known := schedulerv1.AuditEntry_Action_value["ACTION_"+strings.ToUpper(strings.NewReplacer("-", "_", " ", "_").Replace(l.Action))]
		if !known {
			return usagef("--action: there is no %q: see the column WHAT of forge audit", l.Action)
		}
		req.Actions = []schedulerv1.AuditEntry_Action{schedulerv1.AuditEntry_Action(number)}
	}
	return ask(l.query, callWithin, func(ctx context.Context, conn grpc.ClientConnInterface) (all *schedulerv1.ListAuditEntriesResponse, err error) {
		client := schedulerv1.NewAuditServiceClient(conn)
		all = &schedulerv1.ListAuditEntriesResponse{}
		all.Entries, all.NextPageToken, err = upTo(l.Limit, func(size int32, token string) ([]*schedulerv1.AuditEntry, string, error) {
			req.PageSize, req.PageToken = size, token
			page, err := client.ListAuditEntries(ctx, req)
			return page.GetEntries(), page.GetNextPageToken(), err
		})
		return all, heardOf(ctx, conn, l.Repository, len(all.GetEntries()), err)
	}, func(out io.Writer, all *schedulerv1.ListAuditEntriesResponse) { printAudit(out, all.GetEntries()) })
}

func printAudit(out io.Writer, all []*schedulerv1.AuditEntry) {
	if len(all) == 0 {
		fmt.Fprintln(out, "nothing was done") //nolint:errcheck // out is memory
		return
	}
	rows := [][]string{{"WHEN", "WHO", "WHAT", "WHERE", "FROM", "MORE"}}
	for _, e := range all {
		what := wording.Value(e.GetAction())
		if e.GetRefused() {
			what += ", refused"
		}
		rows = append(rows, []string{
			localTime(e.GetCreateTime()), e.GetActor(), what,
			cmp.Or(joined(" ", e.GetRepository(), e.GetEnvironment(), e.GetBuildId(), e.GetSubject()), "-"),
			joined(", ", wording.Value(e.GetOrigin()), e.GetCredential(), e.GetAddress()), e.GetDetail(),
		})
	}
	printTable(out, rows)
}

// joined are those texts that are not empty.
func joined(between string, texts ...string) string {
	var some []string
	for _, text := range texts {
		if text != "" {
			some = append(some, text)
		}
	}
	return strings.Join(some, between)
}
