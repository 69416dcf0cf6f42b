package registration

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
)

// visit is what a page answers to a browser.
type visit struct {
	status int
	text   string
	header http.Header
}

// browser follows no redirect by itself.
func browser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	return &http.Client{Jar: jar, Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func get(t *testing.T, client *http.Client, address string, host ...string) visit {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(host) > 0 {
		req.Host = host[0]
	}
	answer, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return visit{answer.StatusCode, string(text), answer.Header}
}

func openPage(t *testing.T) *Page {
	t.Helper()
	c, err := Config{GitHubURL: publicURL, APIURL: publicAPI, URL: "https://forge.example.com", Name: `<b>"Forge"`}.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// none fails where a code has come.
func (p *Page) none(t *testing.T) {
	t.Helper()
	select {
	case code := <-p.codes:
		t.Errorf("the code %s was taken", code)
	default:
	}
}

const goodCode = "a180b1a3d263c81bc6441d7b990bae27d4c10679"

func TestThePageIsForOneBrowserAndOneCode(t *testing.T) {
	p := openPage(t)
	mine, other := browser(t), browser(t)
	first := get(t, mine, p.URL)
	if first.status != http.StatusOK || !strings.Contains(first.text, `action="https://github.com/settings/apps/new?state=`+p.state+`"`) ||
		strings.Contains(first.text, "<b>") {
		t.Fatalf("%d %s", first.status, first.text)
	}
	policy := first.header.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "form-action https://github.com;", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("the policy lacks %s: %s", part, policy)
		}
	}
	if first.header.Get("Referrer-Policy") != "no-referrer" || first.header.Get("Cache-Control") != "no-store" || strings.Contains(first.text, "<script") {
		t.Errorf("%v", first.header)
	}
	if again := get(t, mine, p.URL); again.status != http.StatusOK {
		t.Errorf("loaded again: %d", again.status)
	}

	good := p.URL + "/code?code=" + goodCode + "&state=" + p.state
	for name, v := range map[string]visit{
		"another browser opens it":         get(t, other, p.URL),
		"another browser has the state":    get(t, other, good),
		"no state":                         get(t, mine, p.URL+"/code?code="+goodCode),
		"another state":                    get(t, mine, p.URL+"/code?state=x&code="+goodCode),
		"no code":                          get(t, mine, p.URL+"/code?state="+p.state),
		"a code that is a path":            get(t, mine, p.URL+"/code?state="+p.state+"&code="+url.QueryEscape("../../user/"+goodCode)),
		"another browser asks for the end": get(t, other, p.URL+"/done"),
	} {
		if v.status != http.StatusForbidden || strings.Contains(v.text, p.state) {
			t.Errorf("%s: %d", name, v.status)
		}
	}
	for name, v := range map[string]visit{
		"another path":     get(t, mine, "http://"+p.host+"/"),
		"a longer path":    get(t, mine, p.URL+"/x"),
		"a name, rebound":  get(t, mine, good, "evil.example"),
		"a name with port": get(t, mine, good, "evil.example:"+strings.Split(p.host, ":")[1]),
		"localhost":        get(t, mine, p.URL, "localhost:"+strings.Split(p.host, ":")[1]),
	} {
		if v.status != http.StatusNotFound && v.status != http.StatusMisdirectedRequest {
			t.Errorf("%s: %d", name, v.status)
		}
	}
	p.none(t)

	taken := get(t, mine, good)
	if to := taken.header.Get("Location"); taken.status != http.StatusSeeOther || to != p.path+"/done" {
		t.Errorf("%d to %s: the code is to leave the address bar", taken.status, to)
	}
	if code, err := p.Code(t.Context()); err != nil || code != goodCode {
		t.Errorf("%s, %v", code, err)
	}
	get(t, mine, strings.Replace(good, goodCode, strings.Repeat("b", 40), 1))
	get(t, mine, good)
	p.none(t) // a second is no use

	shown := make(chan visit)
	go func() { shown <- get(t, mine, p.URL+"/done") }()
	if err := p.Close(t.Context(), "Made <it>", "https://github.com/apps/x", "said"); err != nil {
		t.Error(err)
	}
	if end := <-shown; end.status != http.StatusOK || !strings.Contains(end.text, "Made &lt;it&gt;") || strings.Contains(end.text, goodCode) {
		t.Errorf("%d %s", end.status, end.text)
	}
}

func TestAPageThatNobodyUsesIsClosed(t *testing.T) {
	p := openPage(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Code(ctx); err == nil {
		t.Error("a code of nobody's")
	}
	if err := p.Close(t.Context(), "", ""); err != nil {
		t.Error(err)
	}
	if answer, err := browser(t).Get(p.URL); err == nil {
		t.Errorf("it is there still: %s, %v", answer.Status, answer.Body.Close())
	}
}

func TestAPageIsOpenedElsewhere(t *testing.T) {
	c, err := Config{GitHubURL: publicURL, APIURL: publicAPI, URL: "https://forge.example.com"}.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	e, err := OpenElsewhere(c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(e.Address, "data:text/html;base64,"))
	if err != nil || !strings.Contains(string(text), "https://github.com/settings/apps/new?state="+e.state) || !strings.Contains(string(text), "127.0.0.1:9/") {
		t.Errorf("%v: %s", err, text)
	}
	for pasted, good := range map[string]bool{
		goodCode: true, "  " + goodCode + "\r\n": true, nowhere + "?code=" + goodCode + "&state=" + e.state: true,
		nowhere + "?code=" + goodCode + "&state=other": false, nowhere + "?code=" + goodCode: false,
		nowhere + "?code=../x&state=" + e.state: false, "": false, "two words": false, "../../x": false, "https://github.com/settings/apps": false,
	} {
		if code, err := e.Code(pasted); good != (err == nil) || good && code != goodCode {
			t.Errorf("%q: %q, %v", pasted, code, err)
		}
	}
}
