package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// Target is a build, or a job, with news that the reporter is to be told.
type Target struct {
	BuildID     string
	Version     int64
	Standing    Standing
	Tries       int
	Traceparent string
}

func scanTarget(row sqldb.Row) (Target, error) {
	var r Target
	err := row.Scan(&r.BuildID, &r.Version, &r.Standing, &r.Tries, &r.Traceparent)
	return r, err
}

// issueReport has the reporter told of a build, by a version after the given one. While
// it does not answer, news do not make the tries more frequent. Versions begin with
// the time, so that those of a commit that was pruned go on where they ended.
func (t commit) issueReport(ctx context.Context, b *Build, standing Standing, after int64) error {
	t.Wake(TargetQueue)
	return t.Exec(ctx, `INSERT INTO targets (build_id, repository_id, sha, context, version, standing, due_time, tries, traceparent)
		VALUES ($1, $2, $3, $4, $8, $5, $6, 0, $7)
		ON CONFLICT (build_id) DO UPDATE SET
			version = CASE WHEN excluded.version > targets.version THEN excluded.version ELSE targets.version + 1 END, standing = excluded.standing, traceparent = excluded.traceparent,
			due_time = CASE WHEN targets.tries = 0 THEN excluded.due_time ELSE targets.due_time END`,
		b.GetId(), b.GetRepository().GetId(), b.GetSha(), b.GetContext(), int32(standing), sqldb.Micros(t.Now), b.Traceparent, max(sqldb.Micros(t.Now), after+1))
}

// ClaimTargets leases the targets of which the reporter is to be told.
func (s *Store) ClaimTargets(ctx context.Context, limit int) ([]Target, error) {
	return Claim(ctx, s, limit, scanTarget, `SELECT build_id, version, standing, tries, traceparent
		FROM targets WHERE due_time <= $1 ORDER BY due_time LIMIT $2`, func(ctx context.Context, t *Tx, c Target, until time.Time) error {
		return t.Exec(ctx, `UPDATE targets SET due_time = $2 WHERE build_id = $1`, c.BuildID, sqldb.Micros(until))
	})
}

// Settle says when the reporter is to be told again, the zero time being
// never. A version that was issued meanwhile is due at once.
func (c Target) Settle(ctx context.Context, t *Tx, again time.Time) error {
	settle := `UPDATE targets SET tries = $2, due_time = $3 WHERE build_id = $1`
	if !again.IsZero() {
		return t.Exec(ctx, settle, c.BuildID, c.Tries+1, DueMicros(again))
	}
	t.Wake(TargetQueue)
	return errors.Join(
		t.Exec(ctx, settle, c.BuildID, 0, DueMicros(again)),
		t.Exec(ctx, `UPDATE targets SET due_time = $3 WHERE build_id = $1 AND version > $2`, c.BuildID, c.Version, sqldb.Micros(t.Now)),
	)
}

// Promotion is a request that the reporter is to be asked.
type Promotion struct {
	Request     *reporterv1.PromoteRequest
	version     int64
	Tries       int
	Traceparent string
}

func scanPromotion(row sqldb.Row) (Promotion, error) {
	p := Promotion{Request: &reporterv1.PromoteRequest{}}
	var raw []byte
	if err := row.Scan(&raw, &p.version, &p.Tries, &p.Traceparent); err != nil {
		return p, err
	}
	return p, proto.Unmarshal(raw, p.Request)
}

// AddPromotion stores a request; of several for the same branches the newest
// counts.
func (t *Tx) AddPromotion(ctx context.Context, request *reporterv1.PromoteRequest, traceparent string) error {
	raw, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	t.Wake(PromotionQueue)
	return t.Exec(ctx, `INSERT INTO promotions (repository_id, head, base, version, due_time, tries, traceparent, request)
		VALUES ($1, $2, $3, 1, $4, 0, $5, $6)
		ON CONFLICT (repository_id, head, base) DO UPDATE SET version = promotions.version + 1,
			due_time = excluded.due_time, traceparent = excluded.traceparent, request = excluded.request`,
		request.GetRepository().GetId(), request.GetHead(), request.GetBase(), sqldb.Micros(t.Now), traceparent, raw)
}

// ClaimPromotions leases the promotions that the reporter is to be asked for.
func (s *Store) ClaimPromotions(ctx context.Context, limit int) ([]Promotion, error) {
	return Claim(ctx, s, limit, scanPromotion, `SELECT request, version, tries, traceparent
		FROM promotions WHERE due_time <= $1 ORDER BY due_time LIMIT $2`, func(ctx context.Context, t *Tx, p Promotion, until time.Time) error {
		return p.Settle(ctx, t, until, p.Tries)
	})
}

// Settle says when the reporter is asked again, unless there is a newer
// request; the zero time: never.
func (p Promotion) Settle(ctx context.Context, t *Tx, again time.Time, tries int) error {
	key := []any{p.Request.GetRepository().GetId(), p.Request.GetHead(), p.Request.GetBase(), p.version}
	if again.IsZero() {
		return t.Exec(ctx, `DELETE FROM promotions WHERE repository_id = $1 AND head = $2 AND base = $3 AND version = $4`, key...)
	}
	return t.Exec(ctx, `UPDATE promotions SET due_time = $5, tries = $6
		WHERE repository_id = $1 AND head = $2 AND base = $3 AND version = $4`, append(key, sqldb.Micros(again), tries)...)
}

// Answer is a comment that the reporter is to be asked to answer.
type Answer struct {
	Comment     string
	Request     *reporterv1.AnswerRequest
	Tries       int
	Traceparent string
}

// commentKey is what a comment is known by.
func commentKey(repositoryID, commentID int64) string {
	return fmt.Sprintf("%d/%d", repositoryID, commentID)
}

func scanAnswer(row sqldb.Row) (Answer, error) {
	a := Answer{Request: &reporterv1.AnswerRequest{}}
	var raw []byte
	if err := row.Scan(&a.Comment, &raw, &a.Tries, &a.Traceparent); err != nil {
		return a, err
	}
	return a, proto.Unmarshal(raw, a.Request)
}

// addAnswer stores what was decided about a comment and how it is answered.
func addAnswer(ctx context.Context, t *Tx, request *reporterv1.AnswerRequest, decided []byte, traceparent string) error {
	raw, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	t.Wake(AnswerQueue)
	return t.Exec(ctx, `INSERT INTO answers (comment, decision, create_time, due_time, tries, traceparent, request)
		VALUES ($1, $2, $3, $3, 0, $4, $5) ON CONFLICT DO NOTHING`,
		commentKey(request.GetRepository().GetId(), request.GetCommentId()), decided, sqldb.Micros(t.Now), traceparent, raw)
}

// ClaimAnswers leases the comments that the reporter is to be asked to answer.
func (s *Store) ClaimAnswers(ctx context.Context, limit int) ([]Answer, error) {
	return Claim(ctx, s, limit, scanAnswer, `SELECT comment, request, tries, traceparent
		FROM answers WHERE due_time <= $1 AND due_time < 9223372036854775807 ORDER BY due_time LIMIT $2`, func(ctx context.Context, t *Tx, c Answer, until time.Time) error {
		return c.Settle(ctx, t, until, c.Tries)
	})
}

// Settle says when the reporter is asked again; the zero time: never.
func (c Answer) Settle(ctx context.Context, t *Tx, again time.Time, tries int) error {
	return t.Exec(ctx, `UPDATE answers SET due_time = $2, tries = $3 WHERE comment = $1`, c.Comment, DueMicros(again), tries)
}
