package store

import (
	"context"
	"strconv"
	"strings"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// ListBuilds are those that a request asks for, newest first, from before a number
// on where that is not 0.
func (s *Store) ListBuilds(ctx context.Context, req *schedulerv1.ListBuildsRequest, before int64, limit int) ([]*Build, error) {
	where := []string{"part_of = ''"}
	var args []any
	arg := func(value any) string {
		args = append(args, value)
		return "$" + strconv.Itoa(len(args))
	}
	if before > 0 {
		where = append(where, "number < "+arg(before))
	}
	if req.GetRepository() != "" {
		where = append(where, "repository = "+arg(strings.ToLower(req.GetRepository())))
	}
	if req.GetPullRequest() != 0 {
		// Pull requests are numbered by repository, and found by its id, of which a name may have had several.
		named := arg(strings.ToLower(req.GetRepository()))
		where = append(where, "pull_request = "+arg(req.GetPullRequest()),
			"repository_id = (SELECT repository_id FROM builds WHERE repository = "+named+" ORDER BY number DESC LIMIT 1)")
	}
	if req.GetSha() != "" {
		where = append(where, "sha = "+arg(req.GetSha()))
	}
	var states, actions []string
	for _, state := range req.GetStates() {
		states = append(states, arg(int32(state)))
	}
	for _, action := range req.GetActions() {
		actions = append(actions, arg(int32(action)))
	}
	if len(states) > 0 {
		where = append(where, "state IN ("+strings.Join(states, ", ")+")")
	}
	if len(actions) > 0 {
		where = append(where, "action IN ("+strings.Join(actions, ", ")+")")
	}
	query := `SELECT ` + BuildColumns + ` FROM builds WHERE ` + strings.Join(where, " AND ") + " ORDER BY number DESC LIMIT " + arg(limit)
	found, err := sqldb.Collect(ctx, s.DB.Read(), ScanBuild, query, args...)
	return found, sqldb.Kind(err)
}
