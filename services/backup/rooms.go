package backup

import (
	"io/fs"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/reporter"
	"github.com/forge-ci/forge/services/scheduler"
)

// room is one that has a database.
type room struct {
	name       string
	migrations fs.FS
}

// rooms are in the order in which they are copied; see the package.
func rooms() []room {
	return []room{{"gateway", gateway.Migrations()}, {"scheduler", scheduler.Migrations()}, {"reporter", reporter.Migrations()}}
}

// key is a file of a data directory that is kept apart from the rest.
type key struct{ path, cost string }

// keys say what it costs to be without each. Of one that is set by a setting there is no
// file.
func keys() []key {
	return []key{
		{"secrets-key", "without it the secrets of repositories have to be set again"},
		{"sessions-key", "without it people sign in again"},
		{"admin-token", "without it another is made at the next start"},
		{"runner-tls/cert.pem", "without it another certificate of the runner address is made: builds that run cannot come back"},
		{"runner-tls/key.pem", "it belongs to that certificate"},
	}
}
