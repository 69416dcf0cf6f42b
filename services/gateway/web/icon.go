package web

import (
	"fmt"
	"net/http"
)

// icon is the picture of a tab, in the colour and shape of the state that is asked
// for; that of Forge where there is none.
func icon(w http.ResponseWriter, r *http.Request) {
	secure(w, "image/svg+xml")
	w.Header().Set("Cache-Control", "max-age=86400")
	colour, shape := "#b4470f", `<path d="M9 23V9h14v4H14v2h7v4h-7v4z" fill="#fff"/>`
	switch r.URL.Query().Get("state") {
	case "passed":
		colour, shape = "#1a7f37", `<path d="M8 17l5 5 11-12" fill="none" stroke="#fff" stroke-width="4"/>`
	case "failed", "errored", "timed out":
		colour, shape = "#c3222c", `<path d="M9 9l14 14M23 9L9 23" stroke="#fff" stroke-width="4"/>`
	case "running", "starting":
		colour, shape = "#bf8700", `<circle cx="16" cy="16" r="6" fill="#fff"/>`
	case "queued", "waiting", "blocked":
		colour, shape = "#6e7781", `<circle cx="9" cy="16" r="2.5" fill="#fff"/><circle cx="16" cy="16" r="2.5" fill="#fff"/><circle cx="23" cy="16" r="2.5" fill="#fff"/>`
	case "cancelled":
		colour, shape = "#6e7781", `<path d="M8 16h16" stroke="#fff" stroke-width="4"/>`
	}
	_, _ = fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="%s"/>%s</svg>`, colour, shape)
}
