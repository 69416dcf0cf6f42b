package web

import (
	"bytes"
	"html/template"
	"net/http"
	"strings"

	"github.com/forge-ci/forge/services/gateway/signin"
)

// section is an entry of the bar that is on every page.
type section struct {
	Path, Name string
	Current    bool // the page is of this section
}

// sections are the bar for a page of this path.
func sections(path string) []section {
	all := []section{
		{Path: "/builds", Name: "Builds"},
		{Path: "/repositories", Name: "Repositories"},
		{Path: "/environments", Name: "Environments"},
		{Path: "/deliveries", Name: "Deliveries"},
		{Path: "/audit", Name: "Audit"},
		{Path: "/health", Name: "Health"},
	}
	for n := range all {
		all[n].Current = path == all[n].Path || strings.HasPrefix(path, all[n].Path+"/")
	}
	return all
}

// frame is what stands around the content of every page.
type frame struct {
	Title    template.HTML // escaped
	Scripts  []string
	Sections []section
	Home     bool
	SignIn   bool   // people can sign in here
	Login    string // who has
	CSRF     string // of their session
	Here     string // where they are, to come back to
	Viewer   viewer
	Content  template.HTML
}

// render writes a page whole or not at all. The content is the template of that name;
// its title is the template with ":title" behind the name, and what scripts it needs
// besides forge.js, names with blanks between them, that with ":scripts".
func (p *Pages) render(w http.ResponseWriter, r *http.Request, code int, name string, data any) {
	v := signin.From(r.Context())
	shown := frame{
		Sections: sections(r.URL.Path), Home: r.URL.Path == "/",
		SignIn: p.peopleSignIn(), Login: v.Login, CSRF: v.CSRF, Here: "/",
		Viewer: p.viewerOf(r.Context()),
	}
	if r.Method == http.MethodGet {
		shown.Here = r.URL.RequestURI()
	}
	content, err := p.part(name, data)
	if err == nil {
		shown.Content = content
		shown.Title, err = p.part(name+":title", data)
	}
	if err == nil && p.templates.Lookup(name+":scripts") != nil {
		var scripts template.HTML
		scripts, err = p.part(name+":scripts", data)
		shown.Scripts = strings.Fields(string(scripts))
	}
	var text bytes.Buffer
	if err == nil {
		err = p.templates.ExecuteTemplate(&text, "frame.html", shown)
	}
	if err != nil {
		p.deps.Log.ErrorContext(r.Context(), "page not shown", "page", name, "error", err)
		http.Error(w, "this page is broken, see the log of gateway", http.StatusInternalServerError)
		return
	}
	secure(w, "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = text.WriteTo(w) // a reader who left is no error
}

// part is the HTML of one template.
func (p *Pages) part(name string, data any) (template.HTML, error) {
	var text bytes.Buffer
	err := p.templates.ExecuteTemplate(&text, name, data)
	return template.HTML(text.String()), err //nolint:gosec // html/template has escaped it
}
