package githubsim

import (
	"bytes"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

//go:embed oauth.html
var oauthText string

// oauthWeb is what GitHub's pages, not its API, have for people who sign in, and for who asks for their tokens.
type oauthWeb struct {
	*changes

	page *template.Template
}

func newOAuthWeb(s *changes) *oauthWeb {
	return &oauthWeb{s, template.Must(template.New("oauth").Parse(oauthText))}
}

func webPage(status int, text []byte) *response {
	return &response{status: status, raw: text, header: http.Header{"Content-Type": {"text/html; charset=utf-8"}}}
}

// oauthPage is what a page of these shows.
type oauthPage struct {
	Title, Action, Said string
	Login               string            // who is signed in; empty: the page asks
	Hidden              map[string]string // fields that go along
	AskCode             bool
}

func (s *oauthWeb) show(status int, page oauthPage) *response {
	var text bytes.Buffer
	if err := s.page.Execute(&text, page); err != nil {
		return refuse(http.StatusInternalServerError, err.Error())
	}
	return webPage(status, text.Bytes())
}

// fields are those of a form or of JSON, as the body's type says, beside those of the query.
func (c *call) fields() url.Values {
	kind, _, _ := mime.ParseMediaType(c.Header.Get("Content-Type"))
	values := c.URL.Query()
	if kind == "application/json" {
		var body map[string]string
		_ = json.Unmarshal(c.body, &body) // what is no object of texts has no fields
		for name, value := range body {
			values.Set(name, value)
		}
		return values
	}
	form, _ := url.ParseQuery(string(c.body)) // the rest of it is used, as GitHub does
	maps.Copy(values, form)
	return values
}

// asked is a request for a person's leave that is in order: by a client that is known, back to an address that is.
func (s *oauthWeb) asked(fields url.Values) (redirect *url.URL, refusal *response) {
	known := s.config.OAuth
	if known.ClientID == "" || fields.Get("client_id") != known.ClientID {
		return nil, s.show(http.StatusNotFound, oauthPage{Title: "Page not found"})
	}
	address := fields.Get("redirect_uri")
	if address == "" && len(known.CallbackURLs) > 0 {
		address = known.CallbackURLs[0]
	}
	redirect, err := url.Parse(address)
	if err != nil || !slices.Contains(known.CallbackURLs, address) {
		return nil, s.show(http.StatusOK, oauthPage{
			Title: "Be careful!", Said: "The redirect_uri is not associated with this application.",
		})
	}
	return redirect, nil
}

// askLeave is the page that asks a person whether the App may act for them.
func (s *oauthWeb) askLeave(c *call) *response {
	fields := c.fields()
	if _, refusal := s.asked(fields); refusal != nil {
		return refusal
	}
	hidden := map[string]string{}
	for _, name := range []string{"client_id", "redirect_uri", "state", "code_challenge", "code_challenge_method"} {
		hidden[name] = fields.Get(name)
	}
	return s.show(http.StatusOK, oauthPage{
		Title: "Authorize " + s.config.AppSlug, Action: c.URL.Path, Login: s.config.OAuth.Browser, Hidden: hidden,
	})
}

// giveLeave sends the person's browser back, with a code or with why there is none.
func (s *oauthWeb) giveLeave(c *call) *response {
	fields := c.fields()
	redirect, refusal := s.asked(fields)
	if refusal != nil {
		return refusal
	}
	query := redirect.Query()
	if fields.Get("decision") == "deny" {
		query.Set("error", "access_denied")
		query.Set("error_description", "The user has denied your application access.")
		query.Set("error_uri", "https://docs.github.com/apps/managing-oauth-apps/troubleshooting-authorization-request-errors/#access-denied")
	} else {
		challenge := fields.Get("code_challenge")
		if fields.Get("code_challenge_method") != "S256" {
			challenge = "" // GitHub knows no other method
		}
		query.Set("code", s.people.authorize(s.user(fields.Get("login")), redirect.String(), challenge, s.now()))
	}
	if state := fields.Get("state"); state != "" {
		query.Set("state", state)
	}
	back := *redirect
	back.RawQuery = query.Encode()
	return &response{status: http.StatusFound, header: http.Header{"Location": {back.String()}}}
}

// askDeviceCode is the page where a person enters what a device shows.
func (s *oauthWeb) askDeviceCode(c *call) *response {
	return s.show(http.StatusOK, oauthPage{Title: "Device activation", Action: c.URL.Path, Login: s.config.OAuth.Browser, AskCode: true})
}

func (s *oauthWeb) enterCode(c *call) *response {
	fields := c.fields()
	if err := s.people.enterCode(s.user(fields.Get("login")), fields.Get("user_code"), fields.Get("decision") != "deny", s.now()); err != nil {
		return s.show(http.StatusUnprocessableEntity, oauthPage{Title: "Device activation", Said: err.Error()})
	}
	return s.show(http.StatusOK, oauthPage{Title: "Congratulations, you're all set!", Said: "Your device is now connected."})
}

// An oauthError is what GitHub answers, with 200, where it hands out no token.
type oauthError struct{ code, text string }

// answerOAuth writes an answer as JSON where that is asked for, and else as a form.
func answerOAuth(c *call, fields object) *response {
	if strings.Contains(c.Header.Get("Accept"), "json") {
		return ok(fields)
	}
	values := url.Values{}
	for name, value := range fields {
		values.Set(name, strings.Trim(string(encode(value)), `"`))
	}
	return &response{
		status: http.StatusOK, raw: []byte(values.Encode()),
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded; charset=utf-8"}},
	}
}

func (e *oauthError) answer(c *call) *response {
	return answerOAuth(c, object{
		"error": e.code, "error_description": e.text,
		"error_uri": "https://docs.github.com/apps/managing-oauth-apps/troubleshooting-oauth-app-access-token-request-errors/#" +
			strings.ReplaceAll(e.code, "_", "-"),
	})
}

// startDevice hands out the codes of the device flow.
func (s *oauthWeb) startDevice(c *call) *response {
	known := s.config.OAuth
	switch {
	case known.ClientID == "" || c.fields().Get("client_id") != known.ClientID:
		return refuse(http.StatusNotFound, "Not Found")
	case !known.DeviceFlow:
		return (&oauthError{"device_flow_disabled", "Device Flow must be explicitly enabled for this App"}).answer(c)
	}
	letters := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r + 'G' - '0'
		}
		return r
	}, cryptorand.Text())
	d := &device{userCode: letters[:4] + "-" + letters[4:8], ends: s.now().Add(deviceLife), pause: devicePause}
	code := strings.ToLower(cryptorand.Text() + cryptorand.Text())[:40]
	s.people.devices[code] = d
	return answerOAuth(c, object{
		"device_code": code, "user_code": d.userCode, "verification_uri": string(c.links) + "/login/device",
		"expires_in": int(deviceLife.Seconds()), "interval": int(devicePause.Seconds()),
	})
}

// giveToken hands out a token: for a code, for a device's code, or for a refresh token.
func (s *oauthWeb) giveToken(c *call) *response {
	fields := c.fields()
	a, wrong := s.redeem(fields)
	if wrong != nil {
		answer := wrong.answer(c)
		if body, isObject := answer.body.(object); isObject && wrong.code == "slow_down" {
			body["interval"] = int(s.people.devices[fields.Get("device_code")].pause.Seconds())
		}
		return answer
	}
	s.people.exchange(a, s.now(), s.config.OAuth.life())
	return answerOAuth(c, object{
		"access_token": a.access, "expires_in": int(s.config.OAuth.life().Seconds()), "refresh_token": a.refresh,
		"refresh_token_expires_in": int(refreshLife.Seconds()), "scope": "", "token_type": "bearer",
	})
}

const deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"

func (s *oauthWeb) redeem(fields url.Values) (*authorization, *oauthError) {
	known, grant := s.config.OAuth, fields.Get("grant_type")
	secret := subtle.ConstantTimeCompare([]byte(fields.Get("client_secret")), []byte(known.ClientSecret)) == 1
	switch {
	case known.ClientID == "" || fields.Get("client_id") != known.ClientID, grant != deviceGrant && !secret:
		return nil, &oauthError{"incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect."}
	case grant == deviceGrant:
		return s.redeemDevice(fields.Get("device_code"))
	case grant == "refresh_token":
		if a := s.people.byRefresh(fields.Get("refresh_token"), s.now()); a != nil {
			return a, nil
		}
		return nil, &oauthError{"bad_refresh_token", "The refresh token passed is incorrect or expired."}
	case grant != "" && grant != "authorization_code":
		return nil, &oauthError{"unsupported_grant_type", "The grant type is not supported."}
	}
	return s.redeemCode(fields)
}

// redeemCode takes a code, which is good once, whatever comes of it.
func (s *oauthWeb) redeemCode(fields url.Values) (*authorization, *oauthError) {
	a := s.people.codes[fields.Get("code")]
	delete(s.people.codes, fields.Get("code"))
	if a == nil || !s.now().Before(a.ends) {
		return nil, &oauthError{"bad_verification_code", "The code passed is incorrect or expired."}
	}
	if redirect := fields.Get("redirect_uri"); redirect != "" && redirect != a.redirect {
		return nil, &oauthError{"redirect_uri_mismatch", "The redirect_uri MUST match the registered callback URL for this application."}
	}
	sum := sha256.Sum256([]byte(fields.Get("code_verifier")))
	if a.challenge != "" && base64.RawURLEncoding.EncodeToString(sum[:]) != a.challenge {
		return nil, &oauthError{"bad_verification_code", "The code passed is incorrect or expired."}
	}
	return a, nil
}

func (s *oauthWeb) redeemDevice(code string) (*authorization, *oauthError) {
	d, now := s.people.devices[code], s.now()
	switch {
	case d == nil:
		return nil, &oauthError{"incorrect_device_code", "The device_code provided is not valid."}
	case !now.Before(d.ends):
		return nil, &oauthError{"expired_token", "The `device_code` has expired."}
	case d.denied:
		return nil, &oauthError{"access_denied", "The authorization request was denied."}
	case !d.asked.IsZero() && now.Sub(d.asked) < d.pause:
		d.pause, d.asked = d.pause+devicePause, now
		return nil, &oauthError{"slow_down", "Too many requests have been made in the same timeframe."}
	}
	d.asked = now
	if d.allowedBy == nil {
		return nil, &oauthError{"authorization_pending", "The authorization request is still pending."}
	}
	delete(s.people.devices, code)
	return &authorization{who: d.allowedBy}, nil
}
