// Package egress calls addresses that other people have named. An answer is read no
// further than its first line, a redirect is not followed, and an error tells no address,
// since that may hold a token. A client that keeps to the internet reaches no machine of
// its own network, whatever a name leads to: what is dialled is looked at, not the name.
package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	dialWithin  = 10 * time.Second
	idleFor     = 90 * time.Second
	within      = 30 * time.Second // from the call to the end of the answer
	maxHeaders  = 64 << 10
	maxBody     = 64 << 10
	idleAtOnce  = 8
	maxLine     = 512 // bytes that are read of an answer
	shownOfLine = 200 // characters that are kept of it
	lineWithin  = 2 * time.Second
)

// ErrPrivate is why an address is not called.
var ErrPrivate = errors.New("it leads to an address that is not on the internet")

// Client makes a client that follows no redirect. One that may not reach private
// addresses uses no proxy either, since a proxy looks names up by itself.
func Client(private bool) *http.Client {
	dialer := &net.Dialer{Timeout: dialWithin}
	transport := &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: dialWithin, ForceAttemptHTTP2: true,
		MaxIdleConnsPerHost: idleAtOnce, IdleConnTimeout: idleFor, MaxResponseHeaderBytes: maxHeaders,
		DisableCompression:    true, // what is read stays what was sent
		ExpectContinueTimeout: time.Second,
	}
	if private {
		transport.Proxy = http.ProxyFromEnvironment
	} else {
		dialer.Control = refusePrivate
	}
	return &http.Client{Transport: capped{transport}, Timeout: within, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// capped ends the body of an answer early.
type capped struct{ *http.Transport }

// RoundTrip leaves of a body what somebody may want to look at.
func (c capped) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := c.Transport.RoundTrip(req)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxBody), resp.Body}
	}
	return resp, err
}

// refusePrivate looks at what is about to be dialled, after names were looked up.
func refusePrivate(_, address string, _ syscall.RawConn) error {
	dialled, err := netip.ParseAddrPort(address)
	if err != nil || !Public(dialled.Addr()) {
		return ErrPrivate
	}
	return nil
}

// Public reports whether an address is one of the internet's. IPv4 within IPv6 is not.
func Public(addr netip.Addr) bool {
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" || !addr.IsGlobalUnicast() || addr.IsPrivate() {
		return false
	}
	if addr.Is6() && !netip.MustParsePrefix("2000::/3").Contains(addr) {
		return false
	}
	// https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry
	for _, special := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		if netip.MustParsePrefix(special).Contains(addr) {
			return false
		}
	}
	return true
}

// Answer is what an address answered.
type Answer struct {
	Code int
	Line string // the first line of the body, without what is not to be printed
	// Later is how long the address asks to be left alone; 0 where it does not say.
	Later time.Duration
}

// OK reports whether the address took what it was sent.
func (a Answer) OK() bool { return a.Code >= 200 && a.Code < 300 }

// Refused reports whether the address does not want what it was sent, now or later. Every
// other code that is no success may come of a mistake that somebody mends.
func (a Answer) Refused() bool {
	switch a.Code {
	case http.StatusBadRequest, http.StatusGone, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return true
	default:
		return false
	}
}

// String is the answer in one line.
func (a Answer) String() string {
	text := strings.TrimSpace(strconv.Itoa(a.Code) + " " + http.StatusText(a.Code))
	if a.Line != "" {
		text += ": " + a.Line
	}
	return text
}

// Post sends a body and reads the first line of the answer. Its errors do not tell the
// address.
func Post(ctx context.Context, client *http.Client, address string, header http.Header, body []byte) (Answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return Answer{}, Bare(err)
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return Answer{}, Bare(err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing more is wanted of it
	// The code is the answer; a line that comes slowly is not waited for.
	defer time.AfterFunc(lineWithin, cancel).Stop()
	answer := Answer{Code: resp.StatusCode, Line: firstLine(resp.Body)}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && seconds > 0 {
		answer.Later = time.Duration(min(seconds, int(time.Hour/time.Second))) * time.Second
	}
	return answer, nil
}

// Bare is an error of a client without the address that was called.
func Bare(err error) error {
	if wrong, ok := errors.AsType[*url.Error](err); ok {
		return wrong.Err
	}
	return err
}

func firstLine(body io.Reader) string {
	buffer := make([]byte, maxLine)
	read := 0
	for read < maxLine {
		n, err := body.Read(buffer[read:])
		read += n
		if err != nil || bytes.ContainsAny(bytes.TrimLeft(buffer[:read], "\r\n \t"), "\r\n") {
			break
		}
	}
	text := strings.TrimSpace(string(buffer[:read]))
	if end := strings.IndexAny(text, "\r\n"); end >= 0 {
		text = text[:end]
	}
	return OneLine(text, shownOfLine)
}

// OneLine is a text of strangers in one line of so many characters at most: what is no
// letter, digit, mark or sign that can be printed becomes a blank.
func OneLine(text string, most int) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)), " ")
	if utf8.RuneCountInString(text) > most {
		text = string([]rune(text)[:most-1]) + "…"
	}
	return text
}

// Hidden is an address as it may be shown: what can hold a token is left out.
func Hidden(address string) string {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Host == "" {
		return "(an address)"
	}
	return fmt.Sprintf("%s://%s/…", parsed.Scheme, parsed.Host)
}
