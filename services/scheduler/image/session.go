package image

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets/secretsprovider"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/forge-ci/forge/services/kit/fault"
)

// The folders of the workspace that a build has.
const (
	dirContext    = "context"
	dirDockerfile = "dockerfile"

	// What is remembered of a context is bounded: a container says what is in it.
	mostFiles   = 1_000_000
	mostNames   = 128 << 20 // bytes
	longestPath = 4096      // PATH_MAX of Linux
)

// attachables are what BuildKit may call of this build.
func attachables(r *Request, s *shared, files Files) []session.Attachable {
	return []session.Attachable{
		&registryAuth{build: s},
		secretsprovider.FromMap(r.Secrets),
		&fileSync{files: files, build: s},
	}
}

// fileSync passes on what BuildKit asks for of the workspace.
type fileSync struct {
	files Files
	build *shared
}

// Register is called by the session.
func (f *fileSync) Register(server *grpc.Server) { filesync.RegisterFileSyncServer(server, f) }

// TarStream is of older BuildKits than are served.
func (f *fileSync) TarStream(filesync.FileSync_TarStreamServer) error {
	return status.Error(codes.Unimplemented, "files are sent by DiffCopy")
}

// DiffCopy sends one folder.
func (f *fileSync) DiffCopy(stream filesync.FileSync_DiffCopyServer) error {
	ctx := stream.Context()
	md, _ := metadata.FromIncomingContext(ctx)
	want := Want{
		Dir: first(decoded(md, "dir-name")), Include: decoded(md, "include-patterns"),
		Exclude: decoded(md, "exclude-patterns"), FollowPaths: decoded(md, "followpaths"),
	}
	switch {
	case want.Dir == dirContext, want.Dir == dirDockerfile:
		return f.files.DiffCopy(ctx, want, &checkedStream{Stream: stream, build: f.build})
	case f.build.downloads.has(want.Dir):
		fs, err := fsutil.NewFS(filepath.Join(f.build.downloads.dir, want.Dir))
		if err != nil {
			return err
		}
		return fsutil.Send(ctx, &checkedStream{Stream: stream, build: f.build}, fs, nil)
	}
	return status.Errorf(codes.NotFound, "no folder %q is given to this build", want.Dir)
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// has reports whether a folder holds a download.
func (d *downloads) has(folder string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range d.got {
		if name == folder {
			return true
		}
	}
	return false
}

// checkedStream looks at what a build's container sends: BuildKit, which is root on its
// machine, makes files of it. What a workspace has no use for does not pass.
type checkedStream struct {
	Stream

	build *shared
	mu    sync.Mutex
	sent  map[string]os.FileMode // types, by path
	names int                    // bytes of the paths
}

// SendMsg takes fsutil's packets alone.
func (c *checkedStream) SendMsg(message any) error {
	packet, ok := message.(*fstypes.Packet)
	if !ok {
		return fmt.Errorf("a packet of files is a %T", message)
	}
	switch packet.GetType() {
	case fstypes.PACKET_STAT:
		if stat := packet.GetStat(); stat != nil {
			if err := c.check(stat); err != nil {
				return c.build.refuse(err)
			}
			// The container's users are nobody's in the image; capabilities are among
			// the attributes.
			stat.Uid, stat.Gid, stat.Xattrs = 0, 0, nil
		}
	case fstypes.PACKET_ERR:
		_ = c.build.refuse(fault.Newf(fault.Invalid, "the files of the build: %.300q", packet.GetData()))
	case fstypes.PACKET_DATA, fstypes.PACKET_FIN:
	default:
		return c.build.refuse(fault.New(fault.Invalid, "the files of the build: a packet that only BuildKit sends"))
	}
	return c.Stream.SendMsg(packet)
}

// check refuses what git and a build's commands do not leave in a workspace, or what
// would reach out of it. What symbolic links point at is read in the image alone.
func (c *checkedStream) check(stat *fstypes.Stat) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, kind := stat.GetPath(), os.FileMode(stat.GetMode()).Type()
	if name == "" || name == "." || name != path.Clean(name) || path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") || strings.ContainsRune(name, 0) {
		return fault.Newf(fault.Invalid, "the context holds the path %q, which leads out of it", name)
	}
	if parent := path.Dir(name); parent != "." && c.sent[parent] != os.ModeDir {
		return fault.Newf(fault.Invalid, "the context holds the path %q, which goes through something else than a folder", name)
	}
	if _, again := c.sent[name]; again {
		return fault.Newf(fault.Invalid, "the context holds the path %q twice", name)
	}
	switch {
	case kind != 0 && kind != os.ModeDir && kind != os.ModeSymlink && kind != os.ModeNamedPipe && kind != os.ModeSocket:
		return fault.Newf(fault.Invalid, "the context holds the device %q", name)
	case kind == 0 && stat.GetLinkname() != "":
		if of, sent := c.sent[stat.GetLinkname()]; !sent || of != 0 {
			return fault.Newf(fault.Invalid, "the context holds %q, a link to %q, which is no file of it", name, stat.GetLinkname())
		}
	case stat.GetSize() < 0:
		return fault.Newf(fault.Invalid, "the context holds %q of %d bytes", name, stat.GetSize())
	}
	if c.names += len(name); len(name) > longestPath || len(c.sent) >= mostFiles || c.names > mostNames {
		return fault.Newf(fault.Invalid, "the context holds more than %d files, or longer paths than go with that: leave out by .dockerignore what the image does not need", mostFiles)
	}
	if c.sent == nil {
		c.sent = map[string]os.FileMode{}
	}
	c.sent[name] = kind
	return nil
}

// checkSecrets tells BuildKit's bound before anything runs.
func checkSecrets(secrets map[string][]byte) error {
	for id, value := range secrets {
		if len(value) > secretsprovider.MaxSecretSize {
			return fault.Newf(fault.Invalid, "secret %s is larger than the 500 KB that BuildKit takes", id)
		}
	}
	return nil
}

// decoded is a value of BuildKit's metadata, which newer ones encode where it is not
// ASCII.
func decoded(md metadata.MD, key string) []string {
	values := md.Get(key)
	if first(md.Get(key+"-encoded")) != "1" {
		return values
	}
	plain := slices.Clone(values)
	for i, value := range values {
		if text, err := url.QueryUnescape(value); err == nil {
			plain[i] = text
		}
	}
	return plain
}
