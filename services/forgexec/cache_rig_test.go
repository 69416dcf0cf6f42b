package forgexec

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// fakeContents keeps what is put, whole, by cache key or artifact name.
type fakeContents struct {
	mu   sync.Mutex
	kept map[string]*kept
	// Each call takes the next of these in place of what is due, until there are no more.
	getErrors, putErrors []error
	// hangs has no call answered.
	hangs bool
	// harm changes what is sent.
	harm func(packed []byte)
	// asked are the keys that were asked for, put those that were kept.
	asked, put []string
	verified   int
}

type kept struct {
	begin    *schedulerv1.PutContentRequest_Begin
	manifest *schedulerv1.Manifest
	packed   [][]byte
}

func (c *fakeContents) next(errors *[]error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(*errors) == 0 {
		return nil
	}
	err := (*errors)[0]
	*errors = (*errors)[1:]
	return err
}

func (s *fakeScheduler) GetContent(request *schedulerv1.GetContentRequest, stream grpc.ServerStreamingServer[schedulerv1.GetContentResponse]) error {
	c := &s.contents
	name, exact := request.GetCache().GetKey(), true
	if request.GetArtifact() != nil {
		name = request.GetArtifact().GetName()
	}
	if err := c.next(&c.getErrors); err != nil {
		return err
	}
	if c.hangs {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	c.mu.Lock()
	c.asked = append(c.asked, name)
	if request.GetVerify() {
		c.verified++
		delete(c.kept, name)
	}
	one := c.kept[name]
	for _, prefix := range request.GetCache().GetRestore() {
		if one == nil && c.kept[prefix] != nil { // good enough for a fake
			one, name, exact = c.kept[prefix], prefix, false
		}
	}
	c.mu.Unlock()
	if one == nil {
		return status.Error(codes.NotFound, "nothing was saved for it yet")
	}
	send := func(message *schedulerv1.GetContentResponse) error { return stream.Send(message) }
	found := &schedulerv1.GetContentResponse_Found{Key: name, Exact: exact, Size: one.begin.GetSize(), Files: one.begin.GetFiles(), Chunks: one.begin.GetChunks()}
	if err := send(&schedulerv1.GetContentResponse{Message: &schedulerv1.GetContentResponse_Found_{Found: found}}); err != nil {
		return err
	}
	if err := send(&schedulerv1.GetContentResponse{Message: &schedulerv1.GetContentResponse_Manifest{Manifest: one.manifest}}); err != nil {
		return err
	}
	for n, packed := range one.packed {
		if c.harm != nil {
			packed = append([]byte(nil), packed...)
			c.harm(packed)
		}
		if err := send(&schedulerv1.GetContentResponse{Message: &schedulerv1.GetContentResponse_Data{Data: packed}}); err != nil {
			return err
		}
		if err := c.next(&c.getErrors); err != nil && n == 0 { // in the middle
			return err
		}
	}
	return nil
}

func (s *fakeScheduler) PutContent(stream grpc.BidiStreamingServer[schedulerv1.PutContentRequest, schedulerv1.PutContentResponse]) error {
	c := &s.contents
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := c.next(&c.putErrors); err != nil {
		return err
	}
	if c.hangs {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	one := &kept{begin: first.GetBegin(), manifest: &schedulerv1.Manifest{}}
	lacking := &schedulerv1.PutContentResponse_Lacking{Last: true}
	for int64(len(one.manifest.GetChunks())) < one.begin.GetChunks() {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		one.manifest.IndexChunks = message.GetManifest().GetIndexChunks()
		for _, chunk := range message.GetManifest().GetChunks() {
			lacking.Chunks = append(lacking.Chunks, int32(len(one.manifest.GetChunks())))
			one.manifest.Chunks = append(one.manifest.Chunks, chunk)
		}
	}
	if err := stream.Send(&schedulerv1.PutContentResponse{Message: &schedulerv1.PutContentResponse_Lacking_{Lacking: lacking}}); err != nil {
		return err
	}
	for _, chunk := range one.manifest.GetChunks() {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		chunk.Stored = int32(len(message.GetData()))
		one.packed = append(one.packed, message.GetData())
		if err := c.next(&c.putErrors); err != nil { // in the middle
			return err
		}
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	name := one.begin.GetCache().GetKey()
	if name == "" {
		name = one.begin.GetArtifact()
	}
	c.mu.Lock()
	if c.kept == nil {
		c.kept = map[string]*kept{}
	}
	c.kept[name] = one
	c.put = append(c.put, name)
	c.mu.Unlock()
	return stream.Send(&schedulerv1.PutContentResponse{Message: &schedulerv1.PutContentResponse_Kept_{Kept: &schedulerv1.PutContentResponse_Kept{Stored: 1}}})
}
