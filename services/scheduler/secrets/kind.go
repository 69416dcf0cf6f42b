package secrets

import (
	"fmt"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// kind is what tells one sort of what is kept from the other. Whatever is not named here
// holds for both.
type kind struct {
	table string
	// key is the column of the name, which those of one environment differ by.
	key       string
	usernames bool // the table has them
	// sealedAs begins what a value is bound to when it is encrypted. With another, nothing
	// opens any more.
	sealedAs string
	// spelled is the name as it is kept, whatever people call it.
	spelled func(name string) string
	// check refuses what the kind does not take, beside what no kind takes.
	check func(asked) error
	// value is the field of a request that has it.
	value        string
	set, deleted schedulerv1.AuditEntry_Action
	words
}

// words are how people are told of a kind.
type words struct {
	all      string
	whose    string // of a name and a repository
	none     string // of a repository, a name and an environment
	full     string // of a repository and how many it has
	barred   string // of a name; what follows says why
	bound    string // of a name and environments
	unopened string // of a name and a reason
	command  string // sets one of the name that follows
}

// secret is what a build gets as a variable.
var secret = kind{
	table: "secrets", key: "name", sealedAs: "forge secret",
	spelled: func(name string) string { return name }, check: checkSecret, value: "value",
	set: schedulerv1.AuditEntry_ACTION_SET_SECRET, deleted: schedulerv1.AuditEntry_ACTION_DELETE_SECRET,
	words: words{
		all:      "secrets",
		whose:    "secret %s of %s",
		none:     "%s has no secret %s%s",
		full:     "%s has %d secrets already, which is the most",
		barred:   "secret %s",
		bound:    "secret %s is only for deploys to %s",
		unopened: "secret %s cannot be decrypted: %v; or set it again",
		command:  "forge secrets set",
	},
}

// credentials are what a repository shows to a registry, whose host is their name.
var credentials = kind{
	table: "registry_credentials", key: "host", usernames: true, sealedAs: "forge registry",
	spelled: RegistryHost, check: checkRegistry, value: "password",
	set: schedulerv1.AuditEntry_ACTION_SET_REGISTRY, deleted: schedulerv1.AuditEntry_ACTION_DELETE_REGISTRY,
	words: words{
		all:      "credentials of registries",
		whose:    "credentials of %s for %s",
		none:     "%s has no credentials of %s%s",
		full:     "%s has credentials of %d registries already, which is the most",
		barred:   "what is set for %s",
		bound:    "the credentials for %s are only for deploys to %s",
		unopened: "the credentials for %s cannot be decrypted: %v; or set them again",
		command:  "forge secrets registry set",
	},
}

// slot is where something that is kept has its place. What was encrypted for one
// decrypts in no other.
type slot struct {
	kind              *kind
	repositoryID      int64
	environment, name string
}

// Bytes holds no two slots to be the same: neither text can hold a NUL.
func (s slot) Bytes() []byte {
	return fmt.Appendf(nil, "%s\x00%d\x00%s\x00%s", s.kind.sealedAs, s.repositoryID, s.environment, s.name)
}
