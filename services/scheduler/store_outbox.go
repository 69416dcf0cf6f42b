package scheduler

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/due"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// target is a commit status with news that the reporter is to be told.
type target struct {
	repositoryID int64
	sha, context string
	buildID      string
	version      int64
	tries        int
	traceparent  string
}

func scanTarget(row scanner) (target, error) {
	var r target
	err := row.Scan(&r.repositoryID, &r.sha, &r.context, &r.buildID, &r.version, &r.tries, &r.traceparent)
	return r, err
}

// tell issues the next version of the build's target. Builds that share one are
// told of by the newest alone. While the reporter does not answer, news do not
// make the tries more frequent. Versions begin with the time, so that those of a
// target that was pruned go on where they ended.
func (t *tx) tell(ctx context.Context, b *build) error {
	t.news.reports = true
	return t.exec(ctx, `INSERT INTO targets (repository_id, sha, context, build_number, build_id, version, due_time, tries, traceparent)
		VALUES ($1, $2, $3, $4, $5, $6, $6, 0, $7)
		ON CONFLICT (repository_id, sha, context) DO UPDATE SET
			version = targets.version + 1, build_number = excluded.build_number, build_id = excluded.build_id,
			traceparent = excluded.traceparent,
			due_time = CASE WHEN targets.tries = 0 THEN excluded.due_time ELSE targets.due_time END
		WHERE targets.build_number <= excluded.build_number`,
		b.GetRepository().GetId(), b.GetSha(), b.GetContext(), b.number, b.GetId(), sqldb.Micros(t.now), b.traceparent)
}

func (s *store) claimTargets(ctx context.Context, limit int) ([]target, error) {
	var claimed []target
	_, err := s.write(ctx, func(ctx context.Context, t *tx) (err error) {
		claimed, err = collect(ctx, t, scanTarget, `SELECT repository_id, sha, context, build_id, version, tries, traceparent
			FROM targets WHERE due_time <= $1 ORDER BY due_time LIMIT $2`+t.skipLocked, sqldb.Micros(t.now), limit)
		for _, c := range claimed {
			err = errors.Join(err, t.exec(ctx, `UPDATE targets SET due_time = $4 WHERE repository_id = $1 AND sha = $2 AND context = $3`,
				c.repositoryID, c.sha, c.context, sqldb.Micros(t.now.Add(due.Lease))))
		}
		return err
	})
	return claimed, err
}

// settleTarget says when the reporter is to be told again, the zero time being
// never. A version that was issued meanwhile is due at once.
func (t *tx) settleTarget(ctx context.Context, c target, again time.Time) error {
	settle := `UPDATE targets SET tries = $4, due_time = $5 WHERE repository_id = $1 AND sha = $2 AND context = $3`
	if !again.IsZero() {
		return t.exec(ctx, settle, c.repositoryID, c.sha, c.context, c.tries+1, dueMicros(again))
	}
	t.news.reports = true
	return errors.Join(
		t.exec(ctx, settle, c.repositoryID, c.sha, c.context, 0, dueMicros(again)),
		t.exec(ctx, `UPDATE targets SET due_time = $5 WHERE repository_id = $1 AND sha = $2 AND context = $3 AND version > $4`,
			c.repositoryID, c.sha, c.context, c.version, sqldb.Micros(t.now)),
	)
}

// promotion is a request that the reporter is to be asked.
type promotion struct {
	request     *reporterv1.PromoteRequest
	version     int64
	tries       int
	traceparent string
}

func scanPromotion(row scanner) (promotion, error) {
	p := promotion{request: &reporterv1.PromoteRequest{}}
	var raw []byte
	if err := row.Scan(&raw, &p.version, &p.tries, &p.traceparent); err != nil {
		return p, err
	}
	return p, proto.Unmarshal(raw, p.request)
}

// addPromotion stores a request; of several for the same branches the newest
// counts.
func (t *tx) addPromotion(ctx context.Context, request *reporterv1.PromoteRequest, traceparent string) error {
	raw, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	t.news.promotions = true
	return t.exec(ctx, `INSERT INTO promotions (repository_id, head, base, version, due_time, tries, traceparent, request)
		VALUES ($1, $2, $3, 1, $4, 0, $5, $6)
		ON CONFLICT (repository_id, head, base) DO UPDATE SET version = promotions.version + 1,
			due_time = excluded.due_time, traceparent = excluded.traceparent, request = excluded.request`,
		request.GetRepository().GetId(), request.GetHead(), request.GetBase(), sqldb.Micros(t.now), traceparent, raw)
}

func (s *store) claimPromotions(ctx context.Context, limit int) ([]promotion, error) {
	var claimed []promotion
	_, err := s.write(ctx, func(ctx context.Context, t *tx) (err error) {
		claimed, err = collect(ctx, t, scanPromotion, `SELECT request, version, tries, traceparent
			FROM promotions WHERE due_time <= $1 ORDER BY due_time LIMIT $2`+t.skipLocked, sqldb.Micros(t.now), limit)
		for _, c := range claimed {
			err = errors.Join(err, t.settlePromotion(ctx, c, t.now.Add(due.Lease), c.tries))
		}
		return err
	})
	return claimed, err
}

// settlePromotion says when the reporter is asked again, unless there is a newer
// request; the zero time: never.
func (t *tx) settlePromotion(ctx context.Context, p promotion, again time.Time, tries int) error {
	key := []any{p.request.GetRepository().GetId(), p.request.GetHead(), p.request.GetBase(), p.version}
	if again.IsZero() {
		return t.exec(ctx, `DELETE FROM promotions WHERE repository_id = $1 AND head = $2 AND base = $3 AND version = $4`, key...)
	}
	return t.exec(ctx, `UPDATE promotions SET due_time = $5, tries = $6
		WHERE repository_id = $1 AND head = $2 AND base = $3 AND version = $4`, append(key, sqldb.Micros(again), tries)...)
}

// answer is a comment that the reporter is to be asked to answer.
type answer struct {
	comment     string
	request     *reporterv1.AnswerRequest
	tries       int
	traceparent string
}

// commentKey is what a comment is known by.
func commentKey(repositoryID, commentID int64) string {
	return fmt.Sprintf("%d/%d", repositoryID, commentID)
}

func scanAnswer(row scanner) (answer, error) {
	a := answer{request: &reporterv1.AnswerRequest{}}
	var raw []byte
	if err := row.Scan(&a.comment, &raw, &a.tries, &a.traceparent); err != nil {
		return a, err
	}
	return a, proto.Unmarshal(raw, a.request)
}

// addAnswer stores what was decided about a comment and how it is answered.
func (t *tx) addAnswer(ctx context.Context, request *reporterv1.AnswerRequest, decided []byte, traceparent string) error {
	raw, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	t.news.answers = true
	return t.exec(ctx, `INSERT INTO answers (comment, decision, create_time, due_time, tries, traceparent, request)
		VALUES ($1, $2, $3, $3, 0, $4, $5) ON CONFLICT DO NOTHING`,
		commentKey(request.GetRepository().GetId(), request.GetCommentId()), decided, sqldb.Micros(t.now), traceparent, raw)
}

func (s *store) claimAnswers(ctx context.Context, limit int) ([]answer, error) {
	var claimed []answer
	_, err := s.write(ctx, func(ctx context.Context, t *tx) (err error) {
		claimed, err = collect(ctx, t, scanAnswer, `SELECT comment, request, tries, traceparent
			FROM answers WHERE due_time <= $1 AND due_time < 9223372036854775807 ORDER BY due_time LIMIT $2`+t.skipLocked, sqldb.Micros(t.now), limit)
		for _, c := range claimed {
			err = errors.Join(err, t.settleAnswer(ctx, c, t.now.Add(due.Lease), c.tries))
		}
		return err
	})
	return claimed, err
}

// settleAnswer says when the reporter is asked again; the zero time: never.
func (t *tx) settleAnswer(ctx context.Context, c answer, again time.Time, tries int) error {
	return t.exec(ctx, `UPDATE answers SET due_time = $2, tries = $3 WHERE comment = $1`, c.comment, dueMicros(again), tries)
}
