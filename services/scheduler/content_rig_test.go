package scheduler

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/metadata"

	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/kit/chunks"
	"github.com/forge-ci/forge/services/scheduler/attempt"
)

// keeper plays a runner's side of what is kept, for one attempt.
type keeper struct {
	t       testing.TB
	runners schedulerv1.RunnerServiceClient
	token   string
	runner  string // its id
}

// keeper attaches to a build's first attempt.
func (r keeping) keeper(id string) *keeper {
	r.t.Helper()
	token := r.spec(id, 1).Runner.Token
	u := r.stream(token, &schedulerv1.Hello{RunnerId: "runner-1", MasksSecrets: true, HeedsJobs: true, KeepsContent: true})
	u.recv()
	return &keeper{r.t, r.runners, token, "runner-1"}
}

func cacheKey(key string, restore ...string) *schedulerv1.CacheKey {
	return &schedulerv1.CacheKey{Version: "v", Key: key, Restore: restore}
}

// noise is bytes that no compression makes fewer.
func noise(seed byte, size int) []byte {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func withToken(k *keeper) context.Context {
	return metadata.AppendToOutgoingContext(k.t.Context(), attempt.TokenHeader, k.token)
}

// put keeps data as the content, and returns how many bytes were sent.
func (k *keeper) put(begin *schedulerv1.PutContentRequest_Begin, data []byte) (sent int, err error) {
	k.t.Helper()
	manifest := &schedulerv1.Manifest{}
	var cut [][]byte
	if err := chunks.Split(bytes.NewReader(data), func(chunk []byte) error {
		digest := sha256.Sum256(chunk)
		manifest.Chunks = append(manifest.Chunks, &schedulerv1.Chunk{Digest: digest[:], Size: int32(len(chunk))})
		cut = append(cut, append([]byte(nil), chunk...))
		return nil
	}); err != nil {
		k.t.Fatal(err)
	}
	begin.RunnerId, begin.Size, begin.Chunks = k.runner, int64(len(data)), int64(len(cut))
	return k.send(begin, manifest, cut)
}

func (k *keeper) send(begin *schedulerv1.PutContentRequest_Begin, manifest *schedulerv1.Manifest, cut [][]byte) (sent int, err error) {
	k.t.Helper()
	stream, err := k.runners.PutContent(withToken(k))
	if err != nil {
		return 0, err
	}
	packer, err := chunks.NewPacker()
	if err != nil {
		k.t.Fatal(err)
	}
	for _, message := range []*schedulerv1.PutContentRequest{
		{Message: &schedulerv1.PutContentRequest_Begin_{Begin: begin}},
		{Message: &schedulerv1.PutContentRequest_Manifest{Manifest: manifest}},
	} {
		_ = stream.Send(message) // Recv says what is wrong
	}
	answer, err := stream.Recv()
	if err != nil {
		return 0, err
	}
	for _, n := range answer.GetLacking().GetChunks() {
		_ = stream.Send(&schedulerv1.PutContentRequest{Message: &schedulerv1.PutContentRequest_Data{Data: packer.Pack(nil, cut[n])}})
		sent += len(cut[n])
	}
	_ = stream.Send(&schedulerv1.PutContentRequest{Message: &schedulerv1.PutContentRequest_Commit_{Commit: &schedulerv1.PutContentRequest_Commit{}}})
	_, err = stream.Recv()
	return sent, err
}

// saves keeps data as a cache.
func (k *keeper) saves(key string, data []byte) (sent int, err error) {
	k.t.Helper()
	return k.put(&schedulerv1.PutContentRequest_Begin{Content: &schedulerv1.PutContentRequest_Begin_Cache{Cache: cacheKey(key)}}, data)
}

// get asks for content and returns its bytes as they arrive: each chunk checked.
func (k *keeper) get(request *schedulerv1.GetContentRequest) (found *schedulerv1.GetContentResponse_Found, data []byte, err error) {
	k.t.Helper()
	request.RunnerId = k.runner
	stream, err := k.runners.GetContent(withToken(k), request)
	if err != nil {
		return nil, nil, err
	}
	var listed []*schedulerv1.Chunk
	var packed []byte
	for {
		message, err := stream.Recv()
		if err == io.EOF { //nolint:errorlint // as gRPC returns it
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if message.GetFound() != nil {
			found = message.GetFound()
		}
		listed = append(listed, message.GetManifest().GetChunks()...)
		packed = append(packed, message.GetData()...)
	}
	unpacker, err := chunks.NewUnpacker()
	if err != nil {
		k.t.Fatal(err)
	}
	defer unpacker.Close()
	for _, chunk := range listed {
		piece, err := unpacker.Unpack(nil, packed[:chunk.GetStored()], int(chunk.GetSize()), chunks.Digest(chunk.GetDigest()))
		if err != nil {
			return found, nil, err
		}
		data, packed = append(data, piece...), packed[chunk.GetStored():]
	}
	return found, data, nil
}

// restores asks for a cache.
func (k *keeper) restores(key string, restore ...string) (found string, data []byte, err error) {
	k.t.Helper()
	answer, data, err := k.get(&schedulerv1.GetContentRequest{Content: &schedulerv1.GetContentRequest_Cache{Cache: cacheKey(key, restore...)}})
	return answer.GetKey(), data, err
}

// keeping is a rig whose builds keep what they leave.
type keeping struct{ *rig }

// startKeeping starts a scheduler that runs many builds at once.
func startKeeping(r *rig) keeping {
	r.deps.Capacity = 20
	r.start()
	return keeping{r}
}

// pushed builds a push to a ref.
func (r keeping) pushed(ref, sha string) *keeper {
	r.t.Helper()
	config := usual()
	config.Push = &configv1.Push{Branches: []string{"**"}, Tags: []string{"**"}, Execute: config.GetExecute()}
	r.config.set(sha, valid(config))
	return r.keeper(r.built(pushedTo(ref, sha)))
}

// pulled builds a pull request.
func (r keeping) pulled(number int32, sha string) *keeper {
	r.t.Helper()
	return r.keeper(r.built(opened(number, sha)))
}

// forked builds a pull request of a fork whose author may write.
func (r keeping) forked(number int32, sha string) *keeper {
	r.t.Helper()
	return r.keeper(r.built(fromFork("ada", opened(number, sha))))
}
