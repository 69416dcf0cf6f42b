package store

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/trigger"
)

// buildFilter is what a list of builds is to fulfil.
type buildFilter struct {
	where []string
	args  []any
	// led is that a column is there by whose index builds are found. All others are
	// written so that no index of theirs is taken in its place: SQLite counts no rows and
	// would guess.
	led bool
}

func (f *buildFilter) arg(value any) string {
	f.args = append(f.args, value)
	return "$" + strconv.Itoa(len(f.args))
}

// equal holds a column against a value, unless that is empty.
func (f *buildFilter) equal(column, value string) {
	if value == "" {
		return
	}
	if f.led {
		column += " || ''"
	}
	f.where, f.led = append(f.where, column+" = "+f.arg(value)), true
}

// ListBuilds are those that a request asks for, newest first, from before a number
// on where that is not 0.
func (s *Store) ListBuilds(ctx context.Context, req *schedulerv1.ListBuildsRequest, before int64, limit int) ([]*Build, error) {
	query, args := listBuilds(req, before, limit)
	found, err := sqldb.Collect(ctx, s.DB.Read(), ScanBuild, query, args...)
	return found, sqldb.Kind(err)
}

// listBuilds is the query of a list. What is found by a commit or a pull request is
// little. Of all else the newest of each state are taken and the newest of those shown:
// so an index leads to them, however rare a state is, and however many builds there are.
func listBuilds(req *schedulerv1.ListBuildsRequest, before int64, limit int) (query string, args []any) {
	f := &buildFilter{where: []string{"part_of = ''"}}
	if req.GetJob() != "" {
		f.where[0] = "part_of <> ''"
	}
	if req.GetPullRequest() != 0 {
		// Pull requests are numbered by repository, and found by its id, of which a name may have had several.
		f.where = append(f.where, "repository_id = (SELECT repository_id FROM builds WHERE repository = "+
			f.arg(strings.ToLower(req.GetRepository()))+" ORDER BY number DESC LIMIT 1)", "pull_request = "+f.arg(req.GetPullRequest()))
		f.led = true
	}
	f.equal("sha", req.GetSha())
	if req.GetJob() == "" {
		f.equal("actor", strings.ToLower(req.GetActor()))
	}
	led := f.led
	f.equal("repository", strings.ToLower(req.GetRepository()))
	f.led = led // an index has the repository together with the next column
	f.equal("job", req.GetJob())
	f.equal("branch", req.GetBranch())
	f.equal("base_ref", req.GetBaseRef())
	if req.GetJob() != "" {
		f.equal("actor", strings.ToLower(req.GetActor()))
	}
	if len(req.GetActions()) > 0 {
		f.where = append(f.where, in("action", req.GetActions()))
	}
	if req.GetEnvironment() != "" {
		f.where = append(f.where, "action = "+f.arg(int32(trigger.DeployTo(req.GetEnvironment()))))
	}
	if before > 0 {
		f.where = append(f.where, "number < "+f.arg(before))
	}
	newest := " ORDER BY number DESC LIMIT " + f.arg(limit)
	const columns = `SELECT ` + BuildColumns + ` FROM builds WHERE `
	if req.GetJob() != "" || req.GetPullRequest() != 0 || req.GetSha() != "" {
		if len(req.GetStates()) > 0 {
			f.where = append(f.where, in("state", req.GetStates()))
		}
		return columns + "number IN (SELECT number FROM builds WHERE " + strings.Join(f.where, " AND ") + newest + ") ORDER BY number DESC", f.args
	}
	var each []string
	for state := schedulerv1.Build_STATE_QUEUED; state <= schedulerv1.Build_STATE_TIMED_OUT; state++ {
		if len(req.GetStates()) == 0 || slices.Contains(req.GetStates(), state) {
			each = append(each, fmt.Sprintf("SELECT number FROM (SELECT number FROM builds WHERE %s AND state = %d%s) of_%d",
				strings.Join(f.where, " AND "), state, newest, len(each)))
		}
	}
	if len(each) == 0 { // states that there are none of
		return columns + "1 = 0", nil
	}
	return columns + "number IN (SELECT number FROM (" + strings.Join(each, " UNION ALL ") + ") of_all" + newest + ") ORDER BY number DESC", f.args
}

// in holds a column against numbers.
func in[N ~int32](column string, values []N) string {
	texts := make([]string, 0, len(values))
	for _, value := range values {
		texts = append(texts, strconv.Itoa(int(value)))
	}
	return column + " IN (" + strings.Join(texts, ", ") + ")"
}

// unfilledBatch bounds a transaction.
const unfilledBatch = 200

// FillBuilds gives builds of an older Forge what lists are filtered by.
func (s *Store) FillBuilds(ctx context.Context) error {
	for {
		filled := 0
		err := s.Write(ctx, func(ctx context.Context, t *Tx) error {
			found, err := sqldb.Collect(ctx, t, ScanBuild, `SELECT `+BuildColumns+` FROM builds WHERE branch IS NULL ORDER BY number LIMIT $1`+t.Locked, unfilledBatch)
			filled = len(found)
			for _, b := range found {
				if err != nil {
					break
				}
				day, took := b.ended()
				err = t.Exec(ctx, `UPDATE builds SET branch = $2, base_ref = $3, actor = $4, job = $5, end_day = $6, duration = $7 WHERE id = $1`,
					b.GetId(), b.branch(), b.GetBaseRef(), strings.ToLower(b.GetActor()), b.GetJob(), day, took)
			}
			return err
		})
		if err != nil || filled < unfilledBatch {
			return err
		}
	}
}
