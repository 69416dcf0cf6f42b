package sqldb

import (
	"testing"

	"github.com/pressly/goose/v3"
)

func TestEachDialectGetsWhatIsItsOwn(t *testing.T) {
	const text = "a {{ID}}\n-- only: sqlite\nb\n-- only: postgres\nc\n-- only: end\nd\n-- only: postgres\ne\n-- only: end\n"
	for dialect, want := range map[goose.Dialect]string{
		goose.DialectSQLite3:  "a INTEGER PRIMARY KEY\nb\n-- only: end\nd\n-- only: end\n",
		goose.DialectPostgres: "a BIGSERIAL PRIMARY KEY\nc\n-- only: end\nd\ne\n-- only: end\n",
	} {
		if got := fill(dialect, text); got != want {
			t.Errorf("%s: %q, want %q", dialect, got, want)
		}
	}
}
