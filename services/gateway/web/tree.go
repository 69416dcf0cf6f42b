package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/forge-ci/forge/services/wording"
)

const (
	// mostNodes bounds the tree of a payload: a page holds no more.
	mostNodes = 6000
	// mostDepth bounds how deep it goes. GitHub's payloads have five levels.
	mostDepth = 40
	// mostText is how much of a text is shown, in bytes.
	mostText = 4000
)

// tree is a JSON value, as people unfold it.
type tree struct {
	Key  string
	Kind string // object, array, text, or other
	// Text is that of a value, or says what is in an object or an array.
	Text     string
	Children []*tree
	// Cut is that there is more than is shown.
	Cut bool
}

// Open reports whether a part is unfolded at first.
func (t *tree) Open() bool { return t.Key == "" }

// parseTree reads a payload. What is no JSON is one text, and of what is too large the
// beginning is shown.
func parseTree(payload []byte) *tree {
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber() // ids do not fit into a float
	reader := treeReader{decoder: decoder}
	root, err := reader.value(0)
	if err == nil && root.Kind == "object" {
		root.Text = wording.Count(len(root.Children), "key")
	}
	if err != nil && !reader.full {
		text, cut := clip(string(payload))
		return &tree{Kind: "text", Text: text, Cut: cut}
	}
	return root
}

type treeReader struct {
	decoder *json.Decoder
	nodes   int
	full    bool // no further node fits
}

var errFull = errors.New("the tree is full")

// value reads one value. Where the tree is full it returns what there is, and errFull.
func (r *treeReader) value(depth int) (*tree, error) {
	if r.nodes++; r.nodes > mostNodes || depth > mostDepth {
		r.full = true
		return nil, errFull
	}
	token, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	switch token := token.(type) {
	case json.Delim:
		return r.children(token, depth)
	case string:
		text, cut := clip(token)
		return &tree{Kind: "text", Text: text, Cut: cut}, nil
	case nil:
		return &tree{Kind: "other", Text: "null"}, nil
	default:
		return &tree{Kind: "other", Text: fmt.Sprint(token)}, nil
	}
}

func (r *treeReader) children(open json.Delim, depth int) (*tree, error) {
	t := &tree{Kind: "array"}
	if open == '{' {
		t.Kind = "object"
	}
	for r.decoder.More() {
		key := strconv.Itoa(len(t.Children))
		if t.Kind == "object" {
			token, err := r.decoder.Token()
			if err != nil {
				return nil, err
			}
			key, _ = token.(string)
		}
		child, err := r.value(depth + 1)
		if child != nil {
			child.Key = key
			t.Children = append(t.Children, child)
		}
		if errors.Is(err, errFull) {
			t.Cut = true
			t.describe()
			return t, err
		}
		if err != nil {
			return nil, err
		}
	}
	if _, err := r.decoder.Token(); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	t.describe()
	return t, nil
}

// describe says in short what an object or an array is: by what names it, or else by how
// much is in it.
func (t *tree) describe() {
	for _, name := range []string{"full_name", "login", "title", "name", "ref", "number", "id"} {
		for _, child := range t.Children {
			if child.Key == name && len(child.Children) == 0 && child.Text != "" && child.Text != "null" && len(child.Text) < 100 && t.Kind == "object" {
				t.Text = child.Text
				return
			}
		}
	}
	t.Text = fmt.Sprintf("%d of them", len(t.Children))
	if t.Kind == "object" {
		t.Text = wording.Count(len(t.Children), "key")
	}
	if len(t.Children) == 0 {
		t.Text = "empty"
	}
}

func clip(text string) (string, bool) {
	if !utf8.ValidString(text) {
		text = strings.ToValidUTF8(text, "\uFFFD")
	}
	if len(text) <= mostText {
		return text, false
	}
	text = text[:mostText]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text, true
}
