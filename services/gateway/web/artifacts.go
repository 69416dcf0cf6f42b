package web

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// mostSending and mostZipping bound how many downloads of artifacts there are at
	// once: each holds a stream of the scheduler's, and a zip its list of files.
	mostSending = 32
	mostZipping = 8
	// writeWithin is how long a reader may take for one piece of a download. Whoever
	// reads nothing does not keep others out.
	writeWithin = time.Minute
	// retryAfter is how long whoever came too soon should wait, in seconds.
	retryAfter = "5"
)

// sandboxed is the policy of what a build has left: it runs nothing, loads nothing,
// and is of no origin.
const sandboxed = "sandbox; default-src 'none'"

// artifacts sends people what builds have left, to whoever knows the build, as
// with its log.
type artifacts struct {
	*Pages
	client           schedulerv1.ArtifactServiceClient
	sending, zipping chan struct{}
}

func newArtifacts(p *Pages) *artifacts {
	return &artifacts{
		p, schedulerv1.NewArtifactServiceClient(p.deps.Scheduler),
		make(chan struct{}, mostSending), make(chan struct{}, mostZipping),
	}
}

func (a *artifacts) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /builds/{id}/artifacts/{name}", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(artifact *schedulerv1.Artifact) error { return a.sendZip(w, r, artifact) })
	})
	mux.HandleFunc("GET /builds/{id}/artifacts/{name}/{$}", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(artifact *schedulerv1.Artifact) error { return a.files(w, r, artifact) })
	})
	mux.HandleFunc("GET /builds/{id}/artifacts/{name}/{file...}", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(artifact *schedulerv1.Artifact) error { return a.sendFile(w, r, artifact, r.PathValue("file")) })
	})
}

// artifactAddress is that of an artifact, of its page where the file is "", or of one
// of its files; empty where there can be none.
func artifactAddress(base string, artifact *schedulerv1.Artifact, file ...string) string {
	parts := []any{artifact.GetBuildId(), "artifacts", artifact.GetName()}
	if len(file) == 0 || file[0] == "" {
		return address(base+"/builds", parts...) + strings.Repeat("/", len(file))
	}
	return address(base+"/builds", append(parts, steps(file[0])...)...)
}

// group is what one job has left, or a build without jobs.
type group struct {
	Job  string // its title; empty for the build itself
	Left []*schedulerv1.Artifact
}

// of lists what a build and its jobs have left, in the order of the jobs.
func (a *artifacts) of(ctx context.Context, b *schedulerv1.Build) ([]group, error) {
	answer, err := a.client.ListArtifacts(ctx, &schedulerv1.ListArtifactsRequest{BuildId: b.GetId()})
	if err != nil {
		return nil, err
	}
	left := map[string][]*schedulerv1.Artifact{}
	for _, one := range answer.GetArtifacts() {
		left[one.GetBuildId()] = append(left[one.GetBuildId()], one)
	}
	var all []group
	if own := left[b.GetId()]; len(own) > 0 {
		all = append(all, group{Left: own})
	}
	for _, job := range b.GetJobs() {
		if own := left[job.GetId()]; len(own) > 0 {
			all = append(all, group{Job: job.GetTitle(), Left: own})
		}
	}
	return all, nil
}

// answer answers a request of a browser for an artifact by send, or by a page that says why
// there is none.
func (a *artifacts) answer(w http.ResponseWriter, r *http.Request, send func(*schedulerv1.Artifact) error) {
	id, name, call := r.PathValue("id"), r.PathValue("name"), "ListArtifacts"
	listed, err := a.client.ListArtifacts(r.Context(), &schedulerv1.ListArtifactsRequest{BuildId: id})
	if err == nil {
		all := listed.GetArtifacts()
		n := slices.IndexFunc(all, func(one *schedulerv1.Artifact) bool { return one.GetBuildId() == id && one.GetName() == name })
		call = "DownloadArtifact"
		if n < 0 {
			err = noSuchArtifact()
		} else {
			err = send(all[n])
		}
	}
	if no, refused := errors.AsType[refusal](err); refused {
		if no.kind == codes.Unavailable {
			w.Header().Set("Retry-After", retryAfter)
		}
		a.render(w, r, no.code, "error.html", no.shown)
	} else if err != nil {
		a.showError(w, r, call, err)
	}
}

// begun is why a download did not begin.
func (a *artifacts) begun(r *http.Request, err error) error {
	switch {
	case status.Code(err) == codes.DataLoss:
		a.deps.Log.WarnContext(r.Context(), "DownloadArtifact failed; the artifact is broken and not sent", "build", r.PathValue("id"), "name", r.PathValue("name"), "error", err)
		return refusal{http.StatusInternalServerError, codes.DataLoss, errorPage{
			Title: "This artifact is broken",
			Text:  "What was stored of it is gone, or is not what it was. Run the job again to have it anew.",
		}}
	case fault.Is(err, fault.NotFound):
		return noSuchArtifact()
	}
	return err
}

// breaksOff ends a download of which a part was sent already: the connection is cut,
// so that nobody takes the part for the whole.
func (a *artifacts) breaksOff(r *http.Request, to *steadyWriter, err error) {
	if to.err == nil && r.Context().Err() == nil { // the reader is there still
		a.deps.Log.WarnContext(r.Context(), "DownloadArtifact failed; the download breaks off", "build", r.PathValue("id"), "name", r.PathValue("name"), "error", err)
	}
	panic(http.ErrAbortHandler)
}

// enter takes one of a number of places, unless all are taken.
func enter(places chan struct{}) (leave func(), _ error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, refusal{http.StatusServiceUnavailable, codes.Unavailable, errorPage{
			Title: "Too many downloads at once",
			Text:  "Others are downloading artifacts right now; try again in a moment.",
		}}
	}
}

// filesPage is what the page of an artifact shows.
type filesPage struct {
	Artifact *schedulerv1.Artifact
	Files    []*schedulerv1.FileEntry
	Next     string // the token of the page after
}

// files is the page of an artifact.
func (a *artifacts) files(w http.ResponseWriter, r *http.Request, artifact *schedulerv1.Artifact) error {
	answer, err := a.client.ListArtifactFiles(r.Context(), &schedulerv1.ListArtifactFilesRequest{
		BuildId: artifact.GetBuildId(), Name: artifact.GetName(), PageSize: 500, PageToken: r.URL.Query().Get("from"),
	})
	if err != nil {
		return a.begun(r, err)
	}
	a.render(w, r, http.StatusOK, "artifact.html", filesPage{artifact, answer.GetFiles(), answer.GetNextPageToken()})
	return nil
}

// sendFile sends one file, or the range of it that is asked for. An error is that nothing
// was sent.
func (a *artifacts) sendFile(w http.ResponseWriter, r *http.Request, artifact *schedulerv1.Artifact, name string) error {
	leave, err := enter(a.sending)
	if err != nil {
		return err
	}
	defer leave()
	ranges := r.Header.Get("Range")
	if strings.Contains(ranges, ",") { // many small ones would cost much; who asks for them takes the whole, too
		r.Header.Del("Range")
	}
	file, err := openFile(r.Context(), a.client, artifact, name)
	if err == nil && ranges == "" && r.Method == http.MethodGet {
		err = file.begin() // so that a file that is broken from the start is an error, too
	}
	switch {
	case err != nil && fault.Is(err, fault.NotFound): // the artifact was listed
		return noSuchFile(artifact.GetName(), name)
	case err != nil:
		return a.begun(r, err)
	}
	defer file.close()
	if file.entry.GetType() != schedulerv1.FileEntry_TYPE_FILE {
		return refusal{http.StatusNotFound, codes.NotFound, errorPage{
			Title: "This is a link",
			Text:  "It leads to " + file.entry.GetTarget() + ". Links are not followed here: ask for that file itself.",
		}}
	}
	secureDownload(w, path.Base(name), kindOf(name))
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, artifact.GetCreateTime().AsTime().UnixMicro(), file.entry.GetSize()))
	steady := &steadyWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	defer steady.done()
	http.ServeContent(steady, r, "", artifact.GetCreateTime().AsTime(), file)
	if steady.outside {
		w.Header().Del("Content-Disposition")
		return refusal{http.StatusRequestedRangeNotSatisfiable, codes.OutOfRange, errorPage{
			Title: "There is no such range", Text: fmt.Sprintf("The file has %d bytes.", file.entry.GetSize()),
		}}
	}
	if err := errors.Join(file.err, steady.err); err != nil {
		a.breaksOff(r, steady, err)
	}
	return nil
}

// secureDownload sets the headers of what a build has left.
func secureDownload(w http.ResponseWriter, name string, kind fileKind) {
	secure(w, kind.mime)
	disposition := "attachment"
	if kind.shown {
		disposition = "inline"
	}
	h := w.Header()
	if named := mime.FormatMediaType(disposition, map[string]string{"filename": strings.ToValidUTF8(name, "_")}); named != "" {
		disposition = named
	}
	h.Set("Content-Disposition", disposition)
	h.Set("Content-Security-Policy", sandboxed)
	h.Set("Cache-Control", "private, no-cache")
}

// steadyWriter bounds how long each write may take.
type steadyWriter struct {
	http.ResponseWriter
	control *http.ResponseController
	err     error // of the first write that failed
	outside bool  // a range was asked for that the file does not have; nothing is written
}

// WriteHeader leaves to others how a range is refused.
func (s *steadyWriter) WriteHeader(code int) {
	if s.outside = code == http.StatusRequestedRangeNotSatisfiable; !s.outside {
		s.ResponseWriter.WriteHeader(code)
	}
}

func (s *steadyWriter) Write(p []byte) (int, error) {
	if s.outside {
		return len(p), nil
	}
	_ = s.control.SetWriteDeadline(time.Now().Add(writeWithin)) // where there are none, as in some tests, none is set
	n, err := s.ResponseWriter.Write(p)
	if s.err == nil {
		s.err = err
	}
	return n, err
}

// done takes the deadline away, which the connection would keep else.
func (s *steadyWriter) done() { _ = s.control.SetWriteDeadline(time.Time{}) }
