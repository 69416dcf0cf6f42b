package web

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

const (
	// largestDirectory bounds the list of files of a zip, which is written after them and
	// held until then, in bytes: about 80,000 files.
	largestDirectory = 32 << 20
	// heldEach is about what is held of a file besides its name.
	heldEach = 400
)

// sendZip sends all files of an artifact, zipped as they come. An error is that nothing was
// sent.
func (a *artifacts) sendZip(w http.ResponseWriter, r *http.Request, artifact *schedulerv1.Artifact) error {
	kind := fileKind{mime: "application/zip"}
	if r.Method == http.MethodHead {
		secureDownload(w, artifact.GetName()+".zip", kind)
		return nil
	}
	leave, err := enter(a.zipping)
	if err != nil {
		return err
	}
	defer leave()
	stream, err := a.client.DownloadArtifact(r.Context(), &schedulerv1.DownloadArtifactRequest{BuildId: artifact.GetBuildId(), Name: artifact.GetName()})
	var message *schedulerv1.DownloadArtifactResponse
	if err == nil {
		message, err = stream.Recv()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return a.begun(r, err)
	}
	secureDownload(w, artifact.GetName()+".zip", kind)
	steady := &steadyWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	defer steady.done()
	zipped := newZipper(steady)
	for err == nil {
		if err = zipped.add(message); err == nil {
			message, err = stream.Recv()
		}
	}
	if errors.Is(err, io.EOF) {
		err = zipped.close()
	}
	if err != nil {
		a.breaksOff(r, steady, err)
	}
	return nil
}

// zipper makes a zip of an artifact's entries. Whoever unpacks it gets nothing outside
// of the folder that they unpack it into.
type zipper struct {
	out   *zip.Writer
	file  io.Writer // that is being written
	left  int64     // of its bytes
	held  int       // see largestDirectory
	links map[string]bool
}

func newZipper(w io.Writer) *zipper {
	z := &zipper{out: zip.NewWriter(w), links: map[string]bool{}}
	var one *flate.Writer // there is one file at a time
	z.out.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		if one != nil {
			one.Reset(w)
			return one, nil
		}
		var err error
		one, err = flate.NewWriter(w, flate.BestSpeed)
		return one, err
	})
	return z
}

// add adds an entry, or bytes of the file whose entry came last.
func (z *zipper) add(message *schedulerv1.DownloadArtifactResponse) error {
	if entry := message.GetEntry(); entry != nil {
		if err := z.whole(); err != nil {
			return err
		}
		return z.entry(entry)
	}
	data := message.GetData()
	if len(data) == 0 {
		return nil
	}
	if z.left -= int64(len(data)); z.left < 0 {
		return errors.New("a file of an artifact has more bytes than its entry says")
	}
	_, err := z.file.Write(data)
	return err
}

func (z *zipper) whole() error {
	if z.left > 0 {
		return errors.New("a file of an artifact has fewer bytes than its entry says")
	}
	return nil
}

func (z *zipper) entry(entry *schedulerv1.FileEntry) error {
	name := entry.GetName()
	if name == "" && entry.GetType() == schedulerv1.FileEntry_TYPE_FOLDER { // the workspace itself
		return nil
	}
	if !z.contained(name) {
		return fmt.Errorf("an artifact has a file named %q", name)
	}
	if z.held += len(name) + heldEach; z.held > largestDirectory {
		return errors.New("an artifact has too many files for a zip")
	}
	header := &zip.FileHeader{Name: portable(name), Method: zip.Deflate, Modified: time.Unix(0, entry.GetModified()).UTC()}
	mode := fs.FileMode(entry.GetMode()).Perm()
	switch entry.GetType() {
	case schedulerv1.FileEntry_TYPE_FOLDER:
		header.Name += "/"
		header.Method = zip.Store
		header.SetMode(mode | fs.ModeDir)
		_, err := z.out.CreateHeader(header)
		return err
	case schedulerv1.FileEntry_TYPE_FILE:
		header.SetMode(mode)
		file, err := z.out.CreateHeader(header)
		z.file, z.left = file, entry.GetSize()
		return err
	case schedulerv1.FileEntry_TYPE_HARD_LINK: // which a zip cannot hold
		target, err := filepath.Rel(path.Dir(name), entry.GetTarget())
		if err != nil {
			return err
		}
		return z.link(header, name, target)
	case schedulerv1.FileEntry_TYPE_SYMBOLIC_LINK:
		return z.link(header, name, entry.GetTarget())
	default:
		return fmt.Errorf("an artifact's entry %q is no file, folder or link", name)
	}
}

// contained reports whether a name is one of a file in the folder, and leads through
// no link.
func (z *zipper) contained(name string) bool {
	if !filepath.IsLocal(name) || path.Clean(name) != name || name == "." || strings.ContainsRune(name, 0) {
		return false
	}
	for end := strings.LastIndexByte(name, '/'); end > 0; end = strings.LastIndexByte(name[:end], '/') {
		if z.links[name[:end]] {
			return false
		}
	}
	return true
}

// link leaves out what leads out of the folder. One that goes up again after it went
// down could do so by another link on its way.
func (z *zipper) link(header *zip.FileHeader, name, target string) error {
	if path.IsAbs(target) || path.Clean(target) != target || !filepath.IsLocal(path.Join(path.Dir(name), target)) {
		return nil
	}
	z.links[name] = true
	header.SetMode(fs.ModeSymlink | 0o777)
	header.Method = zip.Store
	file, err := z.out.CreateHeader(header)
	if err == nil {
		_, err = io.WriteString(file, target)
	}
	return err
}

func (z *zipper) close() error { return errors.Join(z.whole(), z.out.Close()) }

// portable is a name in which no system finds another one's separators, or a drive.
func portable(name string) string {
	var safe strings.Builder
	for i := range len(name) {
		c := name[i]
		if c == '\\' || c < ' ' || c == 0x7f || c == ':' && i == 1 {
			fmt.Fprintf(&safe, "%%%02X", c)
			continue
		}
		safe.WriteByte(c)
	}
	return safe.String()
}
