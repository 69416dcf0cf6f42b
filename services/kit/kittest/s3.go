package kittest

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// S3 starts a server that speaks S3, with one bucket, and returns the bucket's
// URL. The credentials are in the environment, until the test ends.
func S3(t *testing.T) (server *httptest.Server, url string) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	backend := s3mem.New()
	if err := backend.CreateBucket("forge"); err != nil {
		t.Fatal(err)
	}
	quiet := gofakes3.WithLogger(gofakes3.StdLog(log.New(io.Discard, "", 0)))
	server = httptest.NewServer(gofakes3.New(backend, quiet).Server())
	t.Cleanup(func() {
		server.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return server, "s3://forge?region=us-east-1&use_path_style=true&endpoint=" + server.URL
}
