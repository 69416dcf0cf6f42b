package gateway

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/forge-ci/forge/services/kit/sqldb"
)

// recall reads a note into value, which stays as it is where there is none.
func (s *store) recall(ctx context.Context, name string, value any) error {
	var text string
	err := s.db.Read().QueryRowContext(ctx, "SELECT value FROM notes WHERE name = $1", name).Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal([]byte(text), value)
	}
	if err != nil {
		return sqldb.Kind(fmt.Errorf("read the note on %s: %w", name, err))
	}
	return nil
}

// note keeps value under name.
func (s *store) note(ctx context.Context, name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("note on %s: %w", name, err)
	}
	err = s.db.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO notes (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, string(text))
		return err
	})
	if err != nil {
		return sqldb.Kind(fmt.Errorf("keep the note on %s: %w", name, err))
	}
	return nil
}
