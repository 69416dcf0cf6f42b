package githubsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// GitHub accepts no token of an App that lasts longer than this.
const maxAppToken = 10 * time.Minute

// A caller is who sent a request: the App, an installation, a person, or nobody in particular, which is the zero caller.
type caller struct {
	app   bool
	grant *grant
	user  *authorization
}

func (c caller) installationID() int64 {
	if c.grant == nil {
		return 0
	}
	return c.grant.installation.id
}

func (c caller) name() string {
	switch {
	case c.app:
		return "app"
	case c.grant != nil:
		return "installation " + strconv.FormatInt(c.grant.installation.id, 10)
	case c.user != nil:
		return "user " + c.user.who.login
	}
	return "nobody"
}

// A grant is what an installation's token allows.
type grant struct {
	installation *installation
	permissions  map[string]string
	repositories []*repository // nil: all of the installation's
	made         time.Time
	expires      time.Time
}

func (g *grant) covers(r *repository) bool {
	if g.repositories != nil {
		return slices.Contains(g.repositories, r) && g.installation.covers(r)
	}
	return g.installation.covers(r)
}

func (g *grant) selection() string {
	if g.repositories != nil {
		return "selected"
	}
	return g.installation.selection()
}

func suspended() *response {
	return refuse(http.StatusForbidden, "This installation has been suspended")
}

// allows reports whether permissions hold a permission at a level, or at a higher one.
func allows(permissions map[string]string, permission, level string) bool {
	levels := []string{"", "read", "write", "admin"}
	wanted := slices.Index(levels, level)
	return wanted > 0 && slices.Index(levels, permissions[permission]) >= wanted
}

// authenticate returns who calls. It refuses a bad token even where the route needs none.
func (s *front) authenticate(r *http.Request, wanted who) (caller, *response) {
	switch wanted {
	case gitClient:
		return s.authenticateGit(r)
	case browser:
		return caller{}, nil
	case anyone, theApp, anInstallation, aPerson:
	}
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	g, user := s.tokens[token], s.people.tokens[token]
	switch {
	case strings.EqualFold(kind, "bearer") && strings.Count(token, ".") == 2:
		if refusal := s.checkAppToken(token); refusal != nil {
			return caller{}, refusal
		}
		return caller{app: true}, nil
	case wanted == theApp:
		return caller{}, refuse(http.StatusUnauthorized, "A JSON web token could not be decoded")
	case kind == "" && wanted == aPerson:
		return caller{}, refuse(http.StatusUnauthorized, "Requires authentication")
	case kind == "":
		return caller{}, nil
	case user != nil && s.now().Before(user.ends):
		return caller{user: user}, nil
	case g != nil && s.now().Before(g.expires) && !g.installation.suspended.IsZero():
		return caller{}, suspended()
	case g != nil && s.now().Before(g.expires):
		return caller{grant: g}, nil
	}
	return caller{}, refuse(http.StatusUnauthorized, "Bad credentials")
}

// checkAppToken returns GitHub's refusal of the App's own token; nil for a good one.
func (s *front) checkAppToken(token string) *response {
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation(), jwt.WithJSONNumber())
	claims := jwt.MapClaims{}
	if _, err := parser.ParseWithClaims(token, claims, func(*jwt.Token) (any, error) { return s.config.AppKey, nil }); err != nil {
		return refuse(http.StatusUnauthorized, "A JSON web token could not be decoded")
	}
	now := s.now()
	issuer, err := strconv.ParseInt(fmt.Sprint(claims["iss"]), 10, 64)
	issued, issuedOK := claimTime(claims["iat"])
	expires, expiresOK := claimTime(claims["exp"])
	switch {
	case err != nil:
		return refuse(http.StatusUnauthorized, "'Issuer' claim ('iss') must be an Integer")
	case issuer != s.config.AppID:
		return refuse(http.StatusNotFound, "Integration not found")
	case !expiresOK || !expires.After(now):
		return refuse(http.StatusUnauthorized, "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires")
	case expires.After(now.Add(maxAppToken)):
		return refuse(http.StatusUnauthorized, "'Expiration time' claim ('exp') is too far in the future")
	case !issuedOK || issued.After(now):
		return refuse(http.StatusUnauthorized, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued")
	}
	return nil
}

func claimTime(claim any) (time.Time, bool) {
	number, ok := claim.(json.Number)
	if !ok {
		return time.Time{}, false
	}
	seconds, err := number.Int64()
	return time.Unix(seconds, 0), err == nil
}

// admit finds the repository that a route names and refuses a caller who may not do there what the route does. A
// repository that the caller may not see is not found; anybody may read a public one.
func (s *front) admit(a access, c *call) *response {
	switch a.who {
	case anyone, theApp, browser:
		return nil
	case aPerson:
		g := c.caller.grant
		if c.caller.user == nil && (g == nil || len(a.permissions) == 0 || !a.allowed(g.permissions)) {
			return refuse(http.StatusForbidden, "Resource not accessible by integration")
		}
		return nil
	case gitClient:
		return s.admitGit(a, c)
	case anInstallation:
	}
	forbidden := refuse(http.StatusForbidden, "Resource not accessible by integration")
	r, named := s.repositoryOf(c)
	if c.caller.user != nil {
		return s.admitUser(a, c, r, named)
	}
	switch {
	case !named && c.caller.grant == nil, c.caller.app:
		return forbidden
	case named && r == nil:
		return refuse(http.StatusNotFound, "Not Found")
	case named && (c.caller.grant == nil || !c.caller.grant.covers(r)):
		if !r.public {
			return refuse(http.StatusNotFound, "Not Found")
		}
		if a.level != "read" {
			return forbidden
		}
	case !a.allowed(c.caller.grant.permissions):
		return forbidden
	}
	if g := c.caller.grant; g != nil && s.now().Before(g.made.Add(s.config.TokenLag)) {
		return forbidden
	}
	c.repo = r
	return nil
}

// repositoryName is the name in the route's path. Git's addresses may end in .git, which is no part of any name.
func repositoryName(c *call) string { return strings.TrimSuffix(c.PathValue("repo"), ".git") }

// repositoryOf finds the repository of the route's path, and reports whether the path names one.
func (s *state) repositoryOf(c *call) (r *repository, named bool) {
	if owner := c.PathValue("owner"); owner != "" {
		return s.repositories[key(owner, repositoryName(c))], true
	}
	if c.PathValue("repository_id") == "" {
		return nil, false
	}
	return s.repositoryByID(c.number("repository_id")), true
}
