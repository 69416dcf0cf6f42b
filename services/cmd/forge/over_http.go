package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/forge-ci/forge/services/settings"
)

// overHTTP makes calls by the JSON API, as the protos bind it, with a personal token.
type overHTTP struct{ address, token string }

// mostAnswer bounds an answer that is read whole, in bytes.
const mostAnswer = 64 << 20

// Invoke implements grpc.ClientConnInterface.
func (o overHTTP) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	answer, err := o.ask(ctx, method, args)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(answer.Body, mostAnswer))
	if err != nil {
		return status.Errorf(codes.Unavailable, "%s breaks off: %v", o.address, err)
	}
	into, ok := reply.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%s: the answer is no message", method)
	}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, into); err != nil {
		return status.Errorf(codes.Internal, "%s answers what is not Forge's: %v", o.address, err)
	}
	return nil
}

// ask sends a call, and returns the answer where it is none of an error.
func (o overHTTP) ask(ctx context.Context, method string, args any) (*http.Response, error) {
	request, ok := args.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "%s: the request is no message", method)
	}
	verb, path, body, err := bind(method, request)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, verb, o.address+path, bytes.NewReader(body))
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "%s: %v", o.address, err)
	}
	r.Header.Set("User-Agent", "forge/"+settings.Version)
	if o.token != "" {
		r.Header.Set("Authorization", "Bearer "+o.token)
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }} // the token is for this Forge alone
	answer, err := client.Do(r)
	if err != nil {
		return nil, codedError{exitNobody, status.Errorf(codes.Unavailable, "no Forge answers at %s: %v", o.address, err)}
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	var problem refusal
	if json.Unmarshal(text, &problem) != nil || problem.Code == 0 {
		return nil, status.Errorf(codes.Unavailable, "%s answers %s: is it the address of Forge's pages?", o.address, answer.Status)
	}
	return nil, problem.err()
}

// refusal is an error as the JSON API tells it.
type refusal struct {
	Code    codes.Code `json:"code"`
	Message string     `json:"message"`
}

func (r refusal) err() error { return status.Error(r.Code, r.Message) }

var pathField = regexp.MustCompile(`\{(\w+)(=[^}]*)?\}`)

// bind is a call as HTTP: its verb, its path with the query, and its body.
func bind(method string, request proto.Message) (verb, path string, body []byte, err error) {
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	described, ok := found.(protoreflect.ServiceDescriptor)
	if err != nil || !ok {
		return "", "", nil, status.Errorf(codes.Unimplemented, "%s is not known", method)
	}
	rule, _ := proto.GetExtension(described.Methods().ByName(protoreflect.Name(name)).Options(), annotations.E_Http).(*annotations.HttpRule)
	for some, template := range map[string]string{
		http.MethodGet: rule.GetGet(), http.MethodPost: rule.GetPost(), http.MethodPut: rule.GetPut(), http.MethodDelete: rule.GetDelete(),
	} {
		if template != "" {
			verb, path = some, template
		}
	}
	if path == "" {
		return "", "", nil, status.Error(codes.PermissionDenied, "this needs the admin token: set FORGE_ADMIN_TOKEN and FORGE_GRPC_ADDRESS")
	}
	rest := proto.Clone(request).ProtoReflect()
	path = pathField.ReplaceAllStringFunc(path, func(variable string) string {
		parts := pathField.FindStringSubmatch(variable)
		f := rest.Descriptor().Fields().ByName(protoreflect.Name(parts[1]))
		value := url.PathEscape(rest.Get(f).String())
		rest.Clear(f)
		if strings.Contains(parts[2], "/") {
			return strings.ReplaceAll(value, "%2F", "/")
		}
		return value
	})
	if rule.GetBody() != "" {
		body, err = protojson.Marshal(rest.Interface())
		return verb, path, body, err
	}
	query := url.Values{}
	rest.Range(func(f protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if f.IsList() {
			for n := range value.List().Len() {
				query.Add(f.JSONName(), textOf(f, value.List().Get(n)))
			}
			return true
		}
		query.Set(f.JSONName(), textOf(f, value))
		return true
	})
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return verb, path, nil, nil
}

// textOf is a value as a query has it.
func textOf(f protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch f.Kind() {
	case protoreflect.EnumKind:
		if named := f.Enum().Values().ByNumber(value.Enum()); named != nil {
			return string(named.Name())
		}
		return fmt.Sprint(value.Enum())
	case protoreflect.MessageKind: // a time or a duration, which JSON has as a text
		text, _ := protojson.Marshal(value.Message().Interface())
		return strings.Trim(string(text), `"`)
	default:
		return value.String()
	}
}

// NewStream implements grpc.ClientConnInterface, for what a server streams.
func (o overHTTP) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return &linesOverHTTP{ctx: ctx, conn: o, method: method}, nil
}

// linesOverHTTP are the messages of an answer, a line of JSON each.
type linesOverHTTP struct {
	ctx    context.Context //nolint:containedctx // of the call
	conn   overHTTP
	method string
	body   io.Closer
	lines  *bufio.Reader
}

func (l *linesOverHTTP) SendMsg(m any) error {
	answer, err := l.conn.ask(l.ctx, l.method, m) //nolint:bodyclose // RecvMsg closes it, which reads to its end
	if err == nil {
		l.body, l.lines = answer.Body, bufio.NewReaderSize(answer.Body, 64<<10)
	}
	return err
}

func (l *linesOverHTTP) RecvMsg(m any) error {
	for {
		text, err := l.lines.ReadBytes('\n')
		if len(bytes.TrimSpace(text)) == 0 {
			if err == nil {
				continue
			}
			_ = l.body.Close() // it was read
			if errors.Is(err, io.EOF) {
				return io.EOF
			}
			return status.Errorf(codes.Unavailable, "%s breaks off: %v", l.conn.address, err)
		}
		var line struct {
			Result json.RawMessage `json:"result"`
			Error  *refusal        `json:"error"`
		}
		into, ok := m.(proto.Message)
		if err := json.Unmarshal(text, &line); err != nil || !ok {
			return status.Errorf(codes.Unavailable, "%s breaks off in the middle of a line", l.conn.address)
		}
		if line.Error != nil {
			return line.Error.err()
		}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(line.Result, into); err != nil {
			return status.Errorf(codes.Internal, "%s answers what is not Forge's: %v", l.conn.address, err)
		}
		return nil
	}
}

func (l *linesOverHTTP) Header() (metadata.MD, error) { return metadata.MD{}, nil }
func (l *linesOverHTTP) Trailer() metadata.MD         { return nil }
func (l *linesOverHTTP) CloseSend() error             { return nil }
func (l *linesOverHTTP) Context() context.Context     { return l.ctx }
