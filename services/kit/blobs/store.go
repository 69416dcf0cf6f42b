package blobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	_ "gocloud.dev/blob/s3blob" // opens s3://
	"gocloud.dev/gcerrors"

	"github.com/forge-ci/forge/services/kit/fault"
)

const (
	// answerWithin is how long a bucket may take to answer when it is opened.
	answerWithin = 15 * time.Second
	// A larger blob is sent to S3 in parts, one after the other, since parts are
	// held in memory.
	partSize = 8 << 20
	// mostTrips bounds how often a page is listed anew: what is not found may be the bucket.
	mostTrips = 100
)

// Config says where blobs are kept.
type Config struct {
	// URL is "" for files in Dir, "file:///path" for files elsewhere, or
	// "s3://bucket" with the parameters of gocloud.dev, such as region, endpoint
	// and prefix.
	URL string
	// Dir is made with mode 0700 if absent.
	Dir string
	// Room is the folder of what one room keeps; another does not see it.
	Room string
}

// Store is what a room keeps. Its errors are fault.NotFound or, as what is wrong
// with a disk or a network can be mended, fault.Unavailable.
type Store struct{ bucket *blob.Bucket }

// Blob is what is listed of one.
type Blob struct {
	Key  string
	Size int64
	Time time.Time // when it was written
}

// Open opens a store that answers.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	bucket, err := open(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("blob store %s: %w", cmp.Or(cfg.URL, cfg.Dir), err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	if _, _, err := bucket.ListPage(ctx, blob.FirstPageToken, 1, nil); err != nil {
		return nil, fmt.Errorf("blob store %s cannot be read: %w", cmp.Or(cfg.URL, cfg.Dir), errors.Join(err, bucket.Close()))
	}
	return &Store{blob.PrefixedBucket(bucket, cfg.Room+"/")}, nil
}

func open(ctx context.Context, cfg Config) (*blob.Bucket, error) {
	where, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	switch where.Scheme {
	case "":
		if cfg.URL != "" {
			return nil, errors.New("this is no URL: use file:///path or s3://bucket")
		}
		return openDir(cfg.Dir)
	case "file":
		if where.Host != "" || where.Path == "" || where.RawQuery != "" {
			return nil, errors.New("use file:///path, with an absolute path and nothing after it")
		}
		return openDir(where.Path)
	case "s3":
		options := where.Query()
		// What speaks S3 and is not Amazon's often knows none of its newer checksums.
		if options.Has("endpoint") && !options.Has("request_checksum_calculation") {
			options.Set("request_checksum_calculation", "when_required")
			options.Set("response_checksum_validation", "when_required")
			where.RawQuery = options.Encode()
		}
		return blob.OpenBucket(ctx, where.String())
	default:
		return nil, fmt.Errorf("unknown scheme %q: use file:///path or s3://bucket", where.Scheme)
	}
}

func openDir(dir string) (*blob.Bucket, error) {
	return fileblob.OpenBucket(dir, &fileblob.Options{
		CreateDir: true, DirFileMode: 0o700, NoTempDir: true, Metadata: fileblob.MetadataDontWrite,
	})
}

// Close closes the store.
func (s *Store) Close() error { return s.bucket.Close() }

// Put keeps what write writes, in place of what had the key. Where write returns
// an error nothing changes, and the error is write's.
func (s *Store) Put(ctx context.Context, key string, write func(io.Writer) error) error {
	ctx, abort := context.WithCancel(ctx)
	defer abort()
	var file *os.File // stays nil in a bucket
	w, err := s.bucket.NewWriter(ctx, key, &blob.WriterOptions{
		ContentType: "application/octet-stream", BufferSize: partSize, MaxConcurrency: 1,
		BeforeWrite: func(as func(any) bool) error {
			as(&file)
			return nil
		},
	})
	if err != nil {
		return kind("write", key, err)
	}
	err = write(writer{w, key})
	if err == nil && file != nil {
		err = kind("write", key, file.Sync())
	}
	if err != nil {
		abort()
		_ = w.Close() // says that it was aborted
		return err
	}
	if err = kind("write", key, w.Close()); err == nil && file != nil {
		err = kind("write", key, syncDir(filepath.Dir(file.Name())))
	}
	return err
}

// syncDir makes the names in a directory survive a loss of power.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Read opens a blob from an offset on, for length bytes or, where that is -1, to
// its end. Who has it open reads it to the end though it is removed.
func (s *Store) Read(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.bucket.NewRangeReader(ctx, key, offset, length, nil)
	if err != nil {
		return nil, kind("read", key, err)
	}
	return reader{r, key}, nil
}

// Has reports whether there is a blob with this key.
func (s *Store) Has(ctx context.Context, key string) (bool, error) {
	found, err := s.bucket.Exists(ctx, key)
	return found, kind("look for", key, err)
}

// Remove removes a blob, if it is there.
func (s *Store) Remove(ctx context.Context, key string) error {
	err := s.bucket.Delete(ctx, key)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil
	}
	return kind("remove", key, err)
}

// List lists the blobs whose keys begin with prefix, in order. In a directory
// what is being written is among them, or was left by a process that was
// killed; its key ends in .tmp.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[Blob, error] {
	return func(yield func(Blob, error) bool) {
		trips := 0
		for pages := s.bucket.List(&blob.ListOptions{Prefix: prefix}); ; {
			found, err := pages.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			// A file that goes while its directory is read trips the reader, who begins the page again.
			if gcerrors.Code(err) == gcerrors.NotFound && trips < mostTrips {
				trips++
				continue
			}
			if err != nil {
				yield(Blob{}, kind("list", prefix, err))
				return
			}
			if !yield(Blob{found.Key, found.Size, found.ModTime}, nil) {
				return
			}
		}
	}
}

// writer and reader tell errors of the store from those of who writes or reads.
type writer struct {
	to  io.Writer
	key string
}

func (w writer) Write(p []byte) (int, error) {
	n, err := w.to.Write(p)
	return n, kind("write", w.key, err)
}

type reader struct {
	io.ReadCloser
	key string
}

func (r reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		return n, err
	}
	return n, kind("read", r.key, err)
}

func kind(verb, key string, err error) error {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case gcerrors.Code(err) == gcerrors.NotFound:
		return fault.Newf(fault.NotFound, "%s blob %s: %w", verb, key, err)
	default:
		return fault.Newf(fault.Unavailable, "%s blob %s: %w", verb, key, err)
	}
}
