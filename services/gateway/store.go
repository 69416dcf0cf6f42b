package gateway

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/compress/s2"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/kit/sqldb"
)

// store keeps deliveries, their payloads, and a forward for each receiver.
type store struct {
	db      *sqldb.DB
	outside []Receiver
}

// The states of a forward, as they stand in the database. That of a delivery
// follows from those of its forwards.
const (
	pending = int64(gatewayv1.Delivery_STATE_PENDING)
	decided = int64(gatewayv1.Delivery_STATE_DECIDED)
	kept    = int64(gatewayv1.Delivery_STATE_KEPT)
)

// delivery is a row of deliveries.
type delivery struct {
	id          int64
	guid        string
	event       string
	headers     map[string]string
	size        int64
	traceparent string
	received    time.Time
	summary
}

// summary is what a list shows of a payload, and what a sweep looks for.
type summary struct {
	action         string
	repository     string
	installationID int64
	pull           string // see pullState
	pullRequest    int32  // see subjectOf, as sha
	sha            string
}

// insert stores the batch and a pending forward for each receiver, in one
// transaction. What is there already stays as it is. A statement for all rows,
// not one for each, since PostgreSQL is a round trip away.
func (s *store) insert(ctx context.Context, batch []*arrival) error {
	rows := make([]any, 0, 6*len(batch))
	byGUID := make(map[string]*arrival, len(batch))
	for _, a := range batch {
		headers, err := json.Marshal(a.headers)
		if err != nil {
			return fmt.Errorf("headers of delivery %s: %w", a.guid, err)
		}
		rows = append(rows, a.guid, a.event, string(headers), a.size, a.traceparent, sqldb.Micros(a.received))
		byGUID[a.guid] = a
	}
	err := s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		insert := "INSERT INTO deliveries (guid, event, headers, size, traceparent, received) VALUES " +
			sqldb.RowMarks(len(batch), 6) + " ON CONFLICT (guid) DO NOTHING RETURNING id, guid"
		type key struct {
			id   int64
			guid string
		}
		fresh, err := sqldb.Collect(ctx, tx, func(row sqldb.Row) (k key, err error) { return k, row.Scan(&k.id, &k.guid) }, insert, rows...)
		if err != nil || len(fresh) == 0 {
			return err
		}
		var payloads, forwards []any
		for _, k := range fresh {
			a := byGUID[k.guid]
			payloads = append(payloads, k.id, a.payload)
			for _, receiver := range s.receiversOf(a.guid, a.event) {
				forwards = append(forwards, k.id, receiver, sqldb.Micros(a.received))
			}
		}
		//nolint:gosec // marks are all that is put in, here and below
		if _, err := tx.ExecContext(ctx, "INSERT INTO payloads (delivery, snappy) VALUES "+sqldb.RowMarks(len(payloads)/2, 2), payloads...); err != nil {
			return err
		}
		//nolint:gosec // as above
		_, err = tx.ExecContext(ctx, "INSERT INTO forwards (delivery, receiver, due) VALUES "+sqldb.RowMarks(len(forwards)/3, 3), forwards...)
		return err
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("store %d deliveries: %w", len(batch), err))
	}
	return nil
}

// inversion is by how much a delivery with a higher id may have been received earlier,
// in microseconds: ids are given as batches are committed, by several gateways with
// clocks of their own. A list of a time need not read what lies further from it.
const inversion = int64(time.Minute / time.Microsecond)

// deliveryFilter says which deliveries a list shows: those after the one with the id
// before, which is 0 on the first page.
type deliveryFilter struct {
	before      int64
	event       string
	repository  string
	pullRequest int32
	sha         string
	state       int64
	from, until int64 // microseconds; 0 for no bound
	limit       int
}

// list returns the ids of a page of deliveries, newest first.
func (s *store) list(ctx context.Context, f deliveryFilter) ([]int64, error) {
	var (
		where []string
		args  []any
	)
	few := f.pullRequest > 0 || f.sha != ""
	for _, c := range []struct {
		wanted    bool
		condition string // $ is the argument
		arg       any
	}{
		{f.before > 0, "id < $", f.before},
		{f.event != "", "event = $", f.event},
		// A pull request, and a commit, lead to a few deliveries, of which people may write the repository as they like.
		{f.repository != "" && !few, "repository = $", f.repository},
		{f.repository != "" && few, "lower(repository) = $", strings.ToLower(f.repository)},
		{f.pullRequest > 0, "pull_request > 0 AND pull_request = $", f.pullRequest},
		{f.sha != "", "sha <> '' AND sha = $", f.sha},
		{f.from > 0, "received >= $", f.from},
		{f.from > 0, "id >= COALESCE((SELECT id FROM deliveries WHERE received < $ ORDER BY received DESC LIMIT 1), 0)", f.from - inversion},
		{f.until > 0, "received < $", f.until},
		{f.until > 0, "id <= COALESCE((SELECT id FROM deliveries WHERE received > $ ORDER BY received LIMIT 1), 9223372036854775807)", f.until + inversion},
		{f.state == pending, "id IN (SELECT delivery FROM forwards WHERE state = $ AND state <> 2)", pending}, // as an index of what is open has it
		{f.state == kept, "id IN (SELECT delivery FROM forwards WHERE state = $ AND state <> 2)", kept},
		{f.state == kept, "NOT EXISTS (SELECT 1 FROM forwards WHERE delivery = id AND state = $)", pending},
		{f.state == decided, "NOT EXISTS (SELECT 1 FROM forwards WHERE delivery = id AND state <> $)", decided},
	} {
		if c.wanted {
			args = append(args, c.arg)
			where = append(where, strings.Replace(c.condition, "$", fmt.Sprintf("$%d", len(args)), 1))
		}
	}
	query := "SELECT id FROM deliveries"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, f.limit)
	query += fmt.Sprintf(" ORDER BY id DESC LIMIT $%d", len(args))
	ids, err := sqldb.Collect(ctx, s.db.Read(), func(row sqldb.Row) (id int64, err error) { return id, row.Scan(&id) }, query, args...)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("list deliveries: %w", err))
	}
	return ids, nil
}

// byIDs returns those of the deliveries that are there, newest first.
func (s *store) byIDs(ctx context.Context, ids []int64) ([]delivery, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	query := "SELECT " + deliveryColumns + " FROM deliveries WHERE id IN (" + sqldb.Marks(1, len(args)) + ") ORDER BY id DESC"
	found, err := sqldb.Collect(ctx, s.db.Read(), scanDelivery, query, args...)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("read deliveries: %w", err))
	}
	return found, nil
}

const deliveryColumns = "id, guid, event, headers, size, traceparent, received, action, repository, installation_id, pull_request, sha"

func scanDelivery(row sqldb.Row) (delivery, error) {
	var (
		d        delivery
		headers  string
		received int64
	)
	err := row.Scan(&d.id, &d.guid, &d.event, &headers, &d.size, &d.traceparent, &received, &d.action, &d.repository, &d.installationID, &d.pullRequest, &d.sha)
	if err != nil {
		return delivery{}, err
	}
	d.received = sqldb.Time(received)
	if err := json.Unmarshal([]byte(headers), &d.headers); err != nil {
		return delivery{}, fmt.Errorf("headers of delivery %s: %w", d.guid, err)
	}
	return d, nil
}

// byGUID returns the delivery that GitHub knows by this id.
func (s *store) byGUID(ctx context.Context, guid string) (delivery, error) {
	d, err := scanDelivery(s.db.Read().QueryRowContext(ctx, "SELECT "+deliveryColumns+" FROM deliveries WHERE guid = $1", guid))
	if errors.Is(err, sql.ErrNoRows) {
		return delivery{}, fault.Newf(fault.NotFound, "no delivery %s: it was never received, or pruned since", guid)
	}
	if err != nil {
		return delivery{}, sqldb.Kind(fmt.Errorf("read delivery %s: %w", guid, err))
	}
	return d, nil
}

// byID returns the delivery of a forward.
func (s *store) byID(ctx context.Context, id int64) (delivery, error) {
	d, err := scanDelivery(s.db.ReadRow(ctx, "SELECT "+deliveryColumns+" FROM deliveries WHERE id = $1", id))
	if err != nil {
		return delivery{}, sqldb.Kind(fmt.Errorf("read delivery %d: %w", id, err))
	}
	return d, nil
}

// payload returns a delivery's payload, nil once it was pruned.
func (s *store) payload(ctx context.Context, id int64) ([]byte, error) {
	var packed []byte
	err := s.db.ReadRow(ctx, "SELECT snappy FROM payloads WHERE delivery = $1", id).Scan(&packed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("read payload of delivery %d: %w", id, err))
	}
	payload, err := s2.Decode(nil, packed)
	if err != nil {
		return nil, fmt.Errorf("unpack payload of delivery %d: %w", id, err)
	}
	return payload, nil
}

// known returns those of the ids that are stored.
func (s *store) known(ctx context.Context, guids []string) ([]string, error) {
	args := make([]any, len(guids))
	for i, guid := range guids {
		args[i] = guid
	}
	scan := func(row sqldb.Row) (guid string, err error) { return guid, row.Scan(&guid) }
	found, err := sqldb.Collect(ctx, s.db.Read(), scan, "SELECT guid FROM deliveries WHERE guid IN ("+sqldb.Marks(1, len(args))+")", args...)
	if err != nil {
		return nil, sqldb.Kind(fmt.Errorf("look for deliveries: %w", err))
	}
	return found, nil
}

// hasPullState reports whether a delivery tells of this state of a pull request.
func (s *store) hasPullState(ctx context.Context, pull string) (there bool, err error) {
	err = s.db.Read().QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM deliveries WHERE pull = $1 AND pull <> '')", pull).Scan(&there)
	if err != nil {
		return false, sqldb.Kind(fmt.Errorf("look for pull request %s: %w", pull, err))
	}
	return there, nil
}

// wholeSHA is the newest commit of a repository that a delivery tells of and whose sha
// begins so; what is given where there is none.
func (s *store) wholeSHA(ctx context.Context, repository, begin string) (sha string, err error) {
	err = s.db.Read().QueryRowContext(ctx, `SELECT sha FROM deliveries WHERE sha <> '' AND sha >= $1 AND sha < $2 AND lower(repository) = $3
		ORDER BY id DESC LIMIT 1`, begin, begin+"g", strings.ToLower(repository)).Scan(&sha) // no digit comes after f
	if errors.Is(err, sql.ErrNoRows) {
		return begin, nil
	}
	if err != nil {
		return "", sqldb.Kind(fmt.Errorf("look for commit %s: %w", begin, err))
	}
	return sha, nil
}
