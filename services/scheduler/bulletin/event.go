package bulletin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
	"github.com/forge-ci/forge/services/scheduler/store"
	"github.com/forge-ci/forge/services/wording"
)

// contentType is that of an event in structured mode.
const contentType = "application/cloudevents+json; charset=utf-8"

// event is a CloudEvent in structured mode:
// https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
type event struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            string          `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// happened says what it is that a state tells of, in the words of CDEvents where those
// have one; "" where nobody is told.
func happened(state schedulerv1.Build_State) string {
	switch {
	case store.Ended(state):
		return "finished"
	case state == schedulerv1.Build_STATE_RUNNING:
		return "started"
	case state == schedulerv1.Build_STATE_QUEUED:
		return "queued"
	case state == schedulerv1.Build_STATE_WAITING:
		return "waiting"
	case state == schedulerv1.Build_STATE_BLOCKED:
		return "blocked"
	default:
		return ""
	}
}

// eventOf is the event that a build has come to its state, with the build as the API
// shows it, without steps and jobs; "" is the id of none.
func eventOf(b *store.Build, source string, now time.Time) (id string, body []byte, err error) {
	what := happened(b.GetState())
	if what == "" {
		return "", nil, nil
	}
	shown := proto.CloneOf(b.Build)
	shown.Steps, shown.Jobs = nil, nil
	data, err := protojson.Marshal(shown)
	if err != nil {
		return "", nil, err
	}
	var compact bytes.Buffer // protojson puts blanks in at random
	if err := json.Compact(&compact, data); err != nil {
		return "", nil, err
	}
	kind := "build"
	if b.GetEnvironment() != "" {
		kind = "deploy"
	}
	e := event{
		SpecVersion: "1.0", ID: fmt.Sprintf("%s.%s.%d", b.GetId(), wording.Value(b.GetState()), now.UnixMicro()), Source: source,
		Type: "dev.forge." + kind + "." + what, Subject: wording.FullName(b.GetRepository()) + "/" + b.GetId(),
		Time: now.UTC().Format(time.RFC3339Nano), DataContentType: "application/json", Data: compact.Bytes(),
	}
	body, err = json.Marshal(e)
	return e.ID, body, err
}
