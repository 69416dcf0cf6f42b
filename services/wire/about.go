package wire

import (
	"context"
	"fmt"

	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/settings"
)

// About is what a process says of itself to who asks for its health: which version it is,
// and how the schemas of its rooms are. It names nothing that is built.
type About struct {
	Version string
	Schemas []sqldb.Schema
}

// aboutThem is what a process with these rooms says.
func aboutThem(rooms ...*Room) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		said := About{Version: settings.Version}
		for _, room := range rooms {
			if room.Schema == nil {
				continue
			}
			schema, err := room.Schema(ctx)
			if err != nil {
				return nil, fmt.Errorf("about itself: %w", err)
			}
			said.Schemas = append(said.Schemas, schema)
		}
		return said, nil
	}
}
