package githubsim

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
)

// getTarball redirects the caller to an address that serves the tarball without a token, as GitHub does.
func (s *codeAPI) getTarball(c *call) *response {
	at := s.read(c.repo, c.PathValue("ref"))
	if at == nil {
		return notFound()
	}
	to := s.signedAddress(c.links, fmt.Sprintf("/codeload/%s/legacy.tar.gz/%s", c.repo.fullName(), at.sha))
	return &response{status: http.StatusFound, header: http.Header{"Location": {to}}}
}

func (s *codeAPI) tarball(c *call, at *commit) *response {
	folder := fmt.Sprintf("%s-%s-%s", c.repo.owner.login, c.repo.name, at.sha[:7])
	return &response{
		status: http.StatusOK,
		header: http.Header{
			"Content-Type":        {"application/x-gzip"},
			"Content-Disposition": {"attachment; filename=" + folder + ".tar.gz"},
		},
		stream: func(w io.Writer) error {
			if at.from == nil {
				return writeTarball(w, at, folder)
			}
			git := &gitAPI{s.changes}
			return git.withGit(c.Context(), c.repo, "", func(run runGit) error {
				return run(nil, w, "archive", "--format=tar.gz", "--prefix="+folder+"/", at.sha)
			})
		},
	}
}

// writeTarball writes what git archive writes: the commit in a global header, each folder before its content, everything
// below one folder.
func writeTarball(w io.Writer, at *commit, folder string) error {
	packed := gzip.NewWriter(w)
	archive := tar.NewWriter(packed)
	global := &tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": at.sha}}
	if err := archive.WriteHeader(global); err != nil {
		return err
	}
	written := map[string]bool{".": true}
	var enter func(dir string) error
	enter = func(dir string) error {
		if written[dir] {
			return nil
		}
		written[dir] = true
		if err := enter(path.Dir(dir)); err != nil {
			return err
		}
		return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o775, ModTime: at.time, Uname: "root", Gname: "root"})
	}
	if err := enter(folder); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(at.files)) {
		whole := folder + "/" + name // not cleaned: a hostile name stays hostile
		if err := enter(path.Dir(whole)); err != nil {
			return err
		}
		if err := writeEntry(archive, whole, at.files[name], at); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return packed.Close()
}

func writeEntry(archive *tar.Writer, name string, f file, at *commit) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o664, ModTime: at.time, Uname: "root", Gname: "root"}
	switch f.mode {
	case modeExecutable:
		header.Mode = 0o775
	case modeSubmodule: // its folder, with nothing in it
		header.Typeflag, header.Mode, header.Name = tar.TypeDir, 0o775, name+"/"
		return archive.WriteHeader(header)
	case modeLink:
		header.Typeflag, header.Mode, header.Linkname = tar.TypeSymlink, 0o777, string(f.bytes())
		return archive.WriteHeader(header)
	}
	header.Size = int64(f.length())
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(f.bytes())
	return err
}
