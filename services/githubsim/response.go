package githubsim

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The length of a page where the request names none, and the greatest that it can name.
const (
	usualPage = 30
	maxPage   = 100
)

// A response is what a handler returns. One of body (as JSON), raw and stream is sent.
type response struct {
	status int
	header http.Header
	body   any
	raw    []byte
	stream func(io.Writer) error
}

// An object is JSON as GitHub writes it, nulls included.
type object map[string]any

func ok(body any) *response { return &response{status: http.StatusOK, body: body} }

func notFound() *response { return refuse(http.StatusNotFound, "Not Found") }

// An apiError is the body of a refusal.
type apiError struct {
	Message string   `json:"message"`
	Errors  []object `json:"errors,omitempty"`
	Docs    string   `json:"documentation_url"`
	Status  string   `json:"status"`
}

func refuse(status int, message string, errors ...object) *response {
	return &response{status: status, body: &apiError{Message: message, Errors: errors, Status: strconv.Itoa(status)}}
}

// text says a refusal in a line.
func (r *response) text() string {
	problem, isError := r.body.(*apiError)
	if !isError {
		return http.StatusText(r.status)
	}
	if len(problem.Errors) == 0 {
		return problem.Message
	}
	first := problem.Errors[0]
	if message, told := first["message"].(string); told {
		return message
	}
	return fmt.Sprint(first["field"], " is ", first["code"])
}

// invalid is GitHub's 422 about one field of a resource.
func invalid(resource, field, code, message string) *response {
	problem := object{"resource": resource, "code": code}
	if field != "" {
		problem["field"] = field
	}
	if message != "" {
		problem["message"] = message
	}
	return refuse(http.StatusUnprocessableEntity, "Validation Failed", problem)
}

// finish encodes the body and adds an ETag, which depends on the token. It makes a 304 of the response where the caller
// has that ETag already.
func (r *response) finish(c *call, rt route) {
	if rt.access.overGit() {
		r.finishGit(rt)
		return
	}
	if r.header == nil {
		r.header = http.Header{}
	}
	if problem, isError := r.body.(*apiError); isError && problem.Docs == "" {
		problem.Docs = "https://docs.github.com/rest"
		if rt.docs != "" {
			problem.Docs += "/" + rt.docs
		}
	}
	if r.body != nil {
		r.raw = encode(r.body)
		r.header.Set("Content-Type", "application/json; charset=utf-8")
	}
	if c.Method != http.MethodGet || r.status != http.StatusOK || r.stream != nil {
		return
	}
	tag := fmt.Sprintf(`W/"%x"`, sha256.Sum256(append([]byte(c.Header.Get("Authorization")), r.raw...)))
	r.header.Set("ETag", tag)
	if strings.TrimPrefix(c.Header.Get("If-None-Match"), "W/") == strings.TrimPrefix(tag, "W/") {
		r.status, r.raw = http.StatusNotModified, nil
	}
}

func (r *response) write(w http.ResponseWriter) error {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	if r.stream != nil {
		return r.stream(w)
	}
	_, err := w.Write(r.raw)
	return err
}

// page returns the page of a list that was asked for, and a header with links to the others. usual is its length where the
// request names none.
func page[T any](c *call, usual int, all []T) ([]T, http.Header) {
	size, number := pageOf(c, usual)
	last := max(1, (len(all)+size-1)/size)
	var rels []string
	link := func(rel string, number int) {
		query := c.URL.Query()
		query.Set("page", strconv.Itoa(number))
		rels = append(rels, fmt.Sprintf(`<%s%s?%s>; rel="%s"`, c.links, c.URL.EscapedPath(), query.Encode(), rel))
	}
	if number > 1 {
		link("prev", number-1)
	}
	if number < last {
		link("next", number+1)
		link("last", last)
	}
	if number > 1 {
		link("first", 1)
	}
	header := http.Header{}
	if len(rels) > 0 {
		header.Set("Link", strings.Join(rels, ", "))
	}
	from := min((number-1)*size, len(all))
	return all[from:min(from+size, len(all))], header
}

// pageOf reads per_page, 100 at most where fewer are usual, and page, which counts from 1.
func pageOf(c *call, usual int) (size, number int) {
	size, _ = strconv.Atoi(c.URL.Query().Get("per_page"))
	if size <= 0 {
		size = usual
	}
	number, _ = strconv.Atoi(c.URL.Query().Get("page"))
	return min(size, max(usual, maxPage)), max(number, 1)
}

// listPage answers with the page of a list that was asked for.
func listPage[T any](c *call, all []T, show func(T) object) *response {
	some, header := page(c, usualPage, all)
	return &response{status: http.StatusOK, header: header, body: each(some, show)}
}

func each[T any](all []T, show func(T) object) []object {
	shown := make([]object, len(all))
	for i, one := range all {
		shown[i] = show(one)
	}
	return shown
}

// timestamp writes a time as GitHub does; null for the zero time.
func timestamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(time.RFC3339)
}

// encode writes JSON of objects, numbers and strings, which cannot fail.
func encode(body any) []byte {
	text, _ := json.Marshal(body) //nolint:errchkjson // see above
	return text
}

// orNull is null for a text that is empty, as GitHub writes one that was not given.
func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
