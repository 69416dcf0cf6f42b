package shell

import (
	"context"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/scheduler/store"
)

// way is one direction of a shell.
type way struct {
	service *Service
	id      string
	outward bool // what is printed; else what is typed
}

// frame is a message on its way.
type frame struct {
	number int64
	keyID  string
	sealed []byte
}

func scanFrame(from sqldb.Row) (frame, error) {
	var f frame
	err := from.Scan(&f.number, &f.keyID, &f.sealed)
	return f, err
}

// put adds a message, unless there is one of its number.
func (w way) put(ctx context.Context, t *store.Tx, number int64, message proto.Message) error {
	raw, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	keyID, sealed, err := w.service.secrets.SealFrame(w.id, raw)
	if err != nil {
		return err
	}
	t.Notify(topic(w.id))
	return t.Exec(ctx, `INSERT INTO shell_frames (shell_id, outward, number, size, key_id, frame) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		w.id, w.outward, number, len(sealed), keyID, sealed)
}

// unread is how many bytes nobody has read yet.
func (w way) unread(ctx context.Context, q sqldb.Querier) (size int64, err error) {
	err = q.QueryRowContext(ctx, `SELECT COALESCE(sum(size), 0) FROM shell_frames WHERE shell_id = $1 AND outward = $2`, w.id, w.outward).Scan(&size)
	return size, sqldb.Kind(err)
}

// after reads messages that come after a number.
func after[M proto.Message](ctx context.Context, w way, number int64, limit int, fresh func() M) (messages []M, last int64, err error) {
	found, err := sqldb.Collect(ctx, w.service.store.DB.Read(), scanFrame, `SELECT number, key_id, frame FROM shell_frames
		WHERE shell_id = $1 AND outward = $2 AND number > $3 ORDER BY number LIMIT $4`, w.id, w.outward, number, limit)
	if err != nil {
		return nil, number, sqldb.Kind(err)
	}
	for _, f := range found {
		raw, err := w.service.secrets.OpenFrame(w.id, f.keyID, f.sealed)
		if err != nil {
			return nil, number, fmt.Errorf("shell %s: %w", w.id, err)
		}
		message := fresh()
		if err := proto.Unmarshal(raw, message); err != nil {
			return nil, number, fmt.Errorf("shell %s: %w", w.id, err)
		}
		messages, number = append(messages, message), f.number
	}
	return messages, number, nil
}

// taken removes what has been read.
func (w way) taken(ctx context.Context, number int64) error {
	return w.service.store.Write(ctx, func(ctx context.Context, t *store.Tx) error {
		t.Notify(topic(w.id))
		return t.Exec(ctx, `DELETE FROM shell_frames WHERE shell_id = $1 AND outward = $2 AND number <= $3`, w.id, w.outward, number)
	})
}
