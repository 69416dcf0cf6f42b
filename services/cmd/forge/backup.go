package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/forge-ci/forge/services/backup"
	"github.com/forge-ci/forge/services/settings"
	"github.com/forge-ci/forge/services/wording"
)

// embedded is a state that lies in a data directory.
type embedded struct {
	settings.Common
}

// elsewhere refuses a state that lies in a database server, and says how that is copied.
func (e embedded) elsewhere(commands string) error {
	if e.DatabaseURL == "" {
		return nil
	}
	return fmt.Errorf("the state is where FORGE_DATABASE_URL says, and not in the data directory. On PostgreSQL run\n\n%s\n\n"+
		"To it belong FORGE_SECRETS_KEY and FORGE_SESSIONS_KEY, kept apart, and a version of the bucket of FORGE_BLOB_URL, or a copy of its folder", commands)
}

type backUp struct {
	embedded
	File string `arg:"" help:"The file to make, or a folder to make one in."`
	Keys string `placeholder:"FILE" help:"Write the keys to this file, for its owner alone; keep it apart from the backup. Default: they are left out."`
}

// Run copies the state, while Forge runs.
func (b backUp) Run() error {
	if err := b.elsewhere(`  pg_dump --format=custom --file=forge.dump "$FORGE_DATABASE_URL"   # all services at one moment`); err != nil {
		return err
	}
	to := b.File
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, "forge-"+time.Now().UTC().Format("20060102-150405")+".tar.zst")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	m, err := backup.Create(ctx, backup.Source{
		DataDir: b.DataDir, To: to, KeysTo: b.Keys, BlobsElsewhere: b.BlobURL, Version: settings.Version, Now: time.Now,
	})
	if err != nil {
		return err
	}
	var said strings.Builder
	var size uint64
	for _, f := range m.Files {
		size += uint64(f.Size) //nolint:gosec // a file's
	}
	fmt.Fprintf(&said, "%s holds %s and %s, %s before they were compressed\n", to,
		wording.Count(len(m.Databases), "database"), wording.Count(len(m.Files)-len(m.Databases), "blob"), humanize.IBytes(size))
	switch {
	case b.Keys != "":
		fmt.Fprintf(&said, "%s holds the keys: keep it apart\n", b.Keys)
	case len(m.Keys) > 0:
		fmt.Fprintf(&said, "left out are the keys %s: say --keys=FILE to have them written to a file of their own\n", strings.Join(m.Keys, ", "))
	}
	if m.Elsewhere != "" {
		fmt.Fprintln(&said, "left out are the blobs, which are where FORGE_BLOB_URL says")
	}
	_, err = io.WriteString(os.Stdout, said.String())
	return err
}

type restore struct {
	embedded
	File  string `arg:"" type:"existingfile" help:"What forge backup has made."`
	Keys  string `placeholder:"FILE" help:"The file with its keys."`
	Force bool   `help:"Replace the state that is there. Forge must not be running on it."`
}

// Run puts a backup into the data directory.
func (r restore) Run() error {
	if err := r.elsewhere(`  pg_restore --clean --if-exists --dbname="$FORGE_DATABASE_URL" forge.dump   # while Forge is stopped`); err != nil {
		return err
	}
	done, err := backup.Restore(context.Background(), backup.Target{From: r.File, KeysFrom: r.Keys, DataDir: r.DataDir, Force: r.Force})
	if err != nil {
		return err
	}
	m := done.Manifest
	var said strings.Builder
	fmt.Fprintf(&said, "%s has the state of %s, made by forge %s\n", r.DataDir, m.Time.Local().Format(time.DateTime), m.Version) //nolint:gosmopolitan // people read their own clock
	for _, missing := range done.Missing {
		fmt.Fprintln(&said, "missing is", missing)
	}
	if m.Elsewhere != "" {
		fmt.Fprintln(&said, "blobs are not in it: they are where FORGE_BLOB_URL said, which was", m.Elsewhere)
	}
	fmt.Fprintln(&said, "start it with forge up: what GitHub sent since is fetched. Let the Forge that the backup was made of not run beside it")
	_, err = io.WriteString(os.Stdout, said.String())
	return err
}
