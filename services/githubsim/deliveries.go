package githubsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
)

// listDeliveries pages by cursor, the newest first: the cursor is the id of the first of the next page.
func (s *appAPI) listDeliveries(c *call) *response {
	newest := s.recent()
	slices.Reverse(newest)
	switch status := c.URL.Query().Get("status"); status {
	case "":
	case "success", "failure":
		newest = slices.DeleteFunc(newest, func(d *Delivery) bool { return d.succeeded() != (status == "success") })
	default:
		return refuse(http.StatusUnprocessableEntity, "Invalid status")
	}
	if cursor := c.URL.Query().Get("cursor"); cursor != "" {
		from := slices.IndexFunc(newest, func(d *Delivery) bool { return strconv.FormatInt(d.ID, 10) == cursor })
		if from < 0 {
			return refuse(http.StatusUnprocessableEntity, "Invalid cursor")
		}
		newest = newest[from:]
	}
	header := http.Header{}
	if size, _ := pageOf(c, usualPage); len(newest) > size {
		query := c.URL.Query()
		query.Set("cursor", strconv.FormatInt(newest[size].ID, 10))
		header.Set("Link", fmt.Sprintf(`<%s%s?%s>; rel="next"`, c.links, c.URL.EscapedPath(), query.Encode()))
		newest = newest[:size]
	}
	return &response{status: http.StatusOK, header: header, body: each(newest, (*Delivery).object)}
}

func (s *appAPI) getDelivery(c *call) *response {
	d := s.delivery(c.number("id"))
	if d == nil {
		return notFound()
	}
	full := d.object()
	full["url"] = s.hooks.address()
	full["request"] = object{"headers": flat(d.Request), "payload": json.RawMessage(d.Payload)}
	full["response"] = object{"headers": flat(d.Response), "payload": d.ResponseBody}
	return ok(full)
}

// redeliver sends the same payload under the same GUID once more, to the address that the webhook has now.
func (s *appAPI) redeliver(c *call) *response {
	d := s.delivery(c.number("id"))
	if d == nil {
		return notFound()
	}
	s.hooks.queue(&Delivery{
		ID: s.id(), GUID: d.GUID, Event: d.Event, Action: d.Action, Installation: d.Installation, Repository: d.Repository,
		Redelivery: true, At: s.now(), Payload: d.Payload,
	})
	return &response{status: http.StatusAccepted, body: object{}}
}

// recent returns the deliveries that GitHub still lists, the oldest first.
func (s *appAPI) recent() []*Delivery {
	since := s.now().Add(-keptFor)
	return slices.DeleteFunc(s.hooks.ended(), func(d *Delivery) bool { return d.At.Before(since) })
}

func (s *appAPI) delivery(id int64) *Delivery {
	all := s.recent()
	i := slices.IndexFunc(all, func(d *Delivery) bool { return d.ID == id })
	if i < 0 {
		return nil
	}
	return all[i]
}

func (d *Delivery) succeeded() bool { return d.StatusCode >= 200 && d.StatusCode <= 299 }

func (d *Delivery) object() object {
	var installation, repository any
	if d.Installation != 0 {
		installation = d.Installation
	}
	if d.Repository != 0 {
		repository = d.Repository
	}
	return object{
		"id": d.ID, "guid": d.GUID, "delivered_at": timestamp(d.At), "redelivery": d.Redelivery, "duration": d.Duration.Seconds(),
		"status": d.Status, "status_code": d.StatusCode, "event": d.Event, "action": orNull(d.Action),
		"installation_id": installation, "repository_id": repository, "throttled_at": nil,
	}
}

func flat(header http.Header) map[string]string {
	one := map[string]string{}
	for name := range header {
		one[name] = header.Get(name)
	}
	return one
}
