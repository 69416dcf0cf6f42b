package reporter

import (
	"context"
	"database/sql"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// maxCalls is how many calls of a target are kept.
const maxCalls = 20

// call is a row of calls: one call of GitHub's API.
type call struct {
	time      time.Time
	took      time.Duration
	request   string
	status    int // 0: no answer
	err       string
	requestID string
	version   int64
}

// callRecorder records the calls of one attempt, below everything that sends a
// call again.
type callRecorder struct {
	now     func() time.Time
	observe func(http.Header)
	next    http.RoundTripper

	mu    sync.Mutex
	calls []call
}

func (r *callRecorder) RoundTrip(req *http.Request) (*http.Response, error) {
	begin := time.Now() // a duration, which no clock of a test can tell
	one := call{time: r.now(), request: req.Method + " " + req.URL.Path}
	resp, err := r.next.RoundTrip(req)
	one.took = time.Since(begin)
	if err != nil {
		one.err = cut(oneLine(err.Error()), 200)
	} else {
		one.status, one.requestID = resp.StatusCode, resp.Header.Get("X-Github-Request-Id")
		r.observe(resp.Header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, one)
	return resp, err
}

// recorded are the calls so far.
func (r *callRecorder) recorded() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls
}

// outcome is how a call ended, for counting.
func (c call) outcome() string {
	switch {
	case c.status == 0:
		return "no answer"
	case c.status >= http.StatusInternalServerError:
		return "server error"
	case c.status == http.StatusForbidden, c.status == http.StatusTooManyRequests:
		return "refused"
	case c.status >= http.StatusBadRequest:
		return "client error"
	default:
		return "done"
	}
}

// addCalls appends to a target's history and forgets what is too old for it.
func addCalls(ctx context.Context, tx *sql.Tx, targetID string, calls []call) error {
	if len(calls) == 0 {
		return nil
	}
	for _, c := range calls[max(len(calls)-maxCalls, 0):] {
		if _, err := tx.ExecContext(ctx, `INSERT INTO calls (target_id, time, took, request, status, error, request_id, version)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, targetID, sqldb.Micros(c.time), c.took.Microseconds(),
			strings.ToValidUTF8(c.request, ""), c.status, c.err, c.requestID, c.version); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM calls WHERE target_id = $1 AND id <=
		(SELECT id FROM calls WHERE target_id = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)`, targetID, maxCalls)
	return err
}

// history is a target's latest calls, oldest first.
func (s *store) history(ctx context.Context, targetID string) ([]call, error) {
	found, err := sqldb.Collect(ctx, s.db.Read(), func(row sqldb.Row) (c call, err error) {
		var at, took int64
		err = row.Scan(&at, &took, &c.request, &c.status, &c.err, &c.requestID, &c.version)
		c.time, c.took = sqldb.Time(at), time.Duration(took)*time.Microsecond
		return c, err
	}, `SELECT time, took, request, status, error, request_id, version FROM calls WHERE target_id = $1 ORDER BY id`, targetID)
	return found, sqldb.Kind(err)
}
