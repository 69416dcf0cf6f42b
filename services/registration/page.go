package registration

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

//go:embed page.html
var pageText string

// shown is what the page shows.
type shown struct {
	Title, Action, Manifest, Name, Install string
	Said                                   []string
	Permissions                            []Permission
}

// Page is the page on loopback. Its address is known to who reads the terminal; the
// first browser that opens it is the only one that can end what it began.
type Page struct {
	URL string // to be opened

	config         Config
	host, path     string // of URL
	state, browser string // what GitHub sends back, and the cookie's value
	lis            net.Listener
	server         *http.Server
	codes          chan string
	result         chan struct{} // closed once end is there
	seen           chan struct{} // closed once a browser has been shown end

	mu     sync.Mutex // guards all below
	opened bool
	used   bool // a code has come
	end    shown
}

const cookieName = "forge_app"

// Open serves the page until Close.
func Open(c Config) (*Page, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("page on loopback: %w", err)
	}
	p := &Page{
		config: c, host: lis.Addr().String(), path: "/" + rand.Text(), state: rand.Text(), browser: rand.Text(), lis: lis,
		codes: make(chan string, 1), result: make(chan struct{}), seen: make(chan struct{}),
	}
	p.URL = "http://" + p.host + p.path
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+p.path, p.begin)
	mux.HandleFunc("GET "+p.path+"/code", p.takeCode)
	mux.HandleFunc("GET "+p.path+"/done", p.done)
	p.server = &http.Server{Handler: p.guard(mux), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = p.server.Serve(lis) }() // ends with Close
	return p, nil
}

// guard answers the host by whose address the page is known alone: another name that
// leads here is somebody else's.
func (p *Page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("Cache-Control", "no-store")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if r.Host != p.host {
			http.Error(w, "this is not the address of the page", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// begin shows the button, to one browser.
func (p *Page) begin(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	mine := !p.opened || p.owns(r)
	p.opened = true
	p.mu.Unlock()
	if !mine {
		show(w, http.StatusForbidden, "'none'", shown{Title: "This page is open in another browser", Said: []string{
			"If it was not you who opened it, end forge app create and start it again.",
		}})
		return
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // loopback speaks HTTP
		Name: cookieName, Value: p.browser, Path: p.path, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	page, err := p.config.page(p.state, p.URL+"/code")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	show(w, http.StatusOK, p.config.origin(), page)
}

func (c Config) page(state, redirect string) (shown, error) {
	manifest, err := c.manifest(redirect)
	return shown{
		Title: "Create the GitHub App of " + c.URL, Action: c.register(state), Manifest: manifest, Name: c.Name, Permissions: c.permissions(),
	}, err
}

// origin is where the form may lead.
func (c Config) origin() string {
	address, err := url.Parse(c.GitHubURL)
	if err != nil {
		return "'none'"
	}
	return address.Scheme + "://" + address.Host
}

func (p *Page) owns(r *http.Request) bool {
	cookie, err := r.Cookie(cookieName)
	return err == nil && same(cookie.Value, p.browser)
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// takeCode is where GitHub sends the browser. The code leaves the address bar at once.
func (p *Page) takeCode(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	code, err := checkCode(query.Get("code"))
	if !p.owns(r) || !same(query.Get("state"), p.state) || err != nil {
		show(w, http.StatusForbidden, "'none'", shown{Title: "This is not the App that was asked for", Said: []string{
			"The browser did not come from the page that forge app create opened. Nothing was done.",
		}})
		return
	}
	p.mu.Lock()
	if !p.used {
		p.used = true
		p.codes <- code
	}
	p.mu.Unlock()
	http.Redirect(w, r, p.path+"/done", http.StatusSeeOther)
}

// done waits for what has become of the code.
func (p *Page) done(w http.ResponseWriter, r *http.Request) {
	if !p.owns(r) {
		show(w, http.StatusForbidden, "'none'", shown{Title: "This page is another browser's"})
		return
	}
	select {
	case <-r.Context().Done():
		return
	case <-p.result:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	show(w, http.StatusOK, "'none'", p.end)
	select {
	case <-p.seen:
	default:
		close(p.seen)
	}
}

// Code waits for the code that GitHub sends.
func (p *Page) Code(ctx context.Context) (string, error) {
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case code := <-p.codes:
		return code, nil
	}
}

// showWithin is how long a browser may take to fetch what has become of its code.
const showWithin = 5 * time.Second

// Close shows the browser what has become of the code, and ends the page.
func (p *Page) Close(ctx context.Context, title, install string, said ...string) error {
	p.mu.Lock()
	waits := p.used
	p.end = shown{Title: title, Install: install, Said: said}
	p.mu.Unlock()
	close(p.result)
	ctx, cancel := context.WithTimeout(ctx, showWithin)
	defer cancel()
	if waits {
		select {
		case <-ctx.Done():
		case <-p.seen:
		}
	}
	if err := p.server.Shutdown(ctx); err != nil {
		return p.server.Close()
	}
	return nil
}

// show writes a page, whose form may lead to an origin.
func show(w http.ResponseWriter, status int, form string, page shown) {
	text, style, err := render(page)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; form-action %s; frame-ancestors 'none'; base-uri 'none'", style, form))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// render makes a page, and the hash by which its style is allowed.
func render(page shown) (text []byte, style string, err error) {
	parsed, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, "", err
	}
	var out bytes.Buffer
	if err := parsed.Execute(&out, page); err != nil {
		return nil, "", err
	}
	_, after, _ := strings.Cut(out.String(), "<style>")
	css, _, _ := strings.Cut(after, "</style>")
	sum := sha256.Sum256([]byte(css))
	return out.Bytes(), base64.StdEncoding.EncodeToString(sum[:]), nil
}

var codePattern = regexp.MustCompile(`^[0-9A-Za-z_-]{8,200}$`)

func checkCode(code string) (string, error) {
	if !codePattern.MatchString(code) {
		return "", errors.New("this is no code of GitHub's: it is the text behind code= in the address that the browser ends at, digits and letters")
	}
	return code, nil
}

// Elsewhere is the page for a machine without a browser: an address that holds all
// of it, to be opened anywhere. GitHub sends the browser to one that nothing can answer,
// where the code can be read.
type Elsewhere struct {
	Address string

	state string
}

// nowhere is a port that browsers refuse to ask.
const nowhere = "http://127.0.0.1:9/forge-app-create"

// OpenElsewhere makes the page.
func OpenElsewhere(c Config) (Elsewhere, error) {
	e := Elsewhere{state: rand.Text()}
	page, err := c.page(e.state, nowhere)
	if err != nil {
		return e, err
	}
	text, _, err := render(page)
	e.Address = "data:text/html;base64," + base64.StdEncoding.EncodeToString(text)
	return e, err
}

// Code reads what a person has pasted: the code, or the address that it stands in,
// which has to be the one that was asked for.
func (e Elsewhere) Code(pasted string) (string, error) {
	pasted = strings.TrimSpace(pasted)
	if !strings.Contains(pasted, "code=") {
		return checkCode(pasted)
	}
	address, err := url.Parse(pasted)
	if err != nil {
		return checkCode("")
	}
	if !same(address.Query().Get("state"), e.state) {
		return "", errors.New("this address is of another attempt: start again, and open the address that is printed then")
	}
	return checkCode(address.Query().Get("code"))
}
