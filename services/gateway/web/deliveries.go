package web

import (
	"net/http"
	"strings"

	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	"github.com/forge-ci/forge/services/kit/fault"
	"github.com/forge-ci/forge/services/wording"
)

// deliveryPages are the pages of what GitHub sent.
type deliveryPages struct{ *Pages }

// deliveryList is a list of what GitHub sent with its filters.
type deliveryList struct {
	Query         query
	Chips         []chip
	States        []choice
	Deliveries    []*gatewayv1.Delivery
	Newest, Older string
	Everything    string // the address without filters
	Problem       string
}

// Filter is the value of a filter of the list.
func (l *deliveryList) Filter(name string) string { return l.Query.Get(name) }

func deliveryFilters() [][2]string {
	return [][2]string{{"repository", "repository"}, {"pull_request", "pull request"}, {"event", "event"}, {"state", "state"}, {"sha", "commit"}}
}

// deliveriesPage lists what GitHub sent, and what became of it.
func (p deliveryPages) deliveriesPage(w http.ResponseWriter, r *http.Request) {
	q := p.readQuery(r, "/deliveries", "repository", "pull_request", "event", "state", "sha")
	list := &deliveryList{
		Query: q, Chips: q.chips(deliveryFilters()...), States: q.choices("state", "pending", "decided", "kept"),
		Newest: q.newest(), Everything: q.path,
	}
	pull, err := pullNumber(q)
	switch {
	case err != nil:
		list.Problem = sentence(err)
	case pull > 0 && q.Get("repository") == "":
		list.Problem = "A pull request is one of a repository: name that as well."
	}
	if list.Problem != "" {
		p.render(w, r, http.StatusBadRequest, "deliveries.html", list)
		return
	}
	state := gatewayv1.Delivery_State(gatewayv1.Delivery_State_value["STATE_"+strings.ToUpper(q.Get("state"))])
	answer, err := p.deliveries.ListDeliveries(r.Context(), &gatewayv1.ListDeliveriesRequest{
		Repository: q.Get("repository"), PullRequest: pull, Event: q.Get("event"), Sha: q.Get("sha"), State: state, PageToken: q.Get("page"),
	})
	list.Problem = invalid(err)
	if err != nil && list.Problem == "" {
		p.fails(w, r, "ListDeliveries", err)
		return
	}
	list.Deliveries, list.Older = answer.GetDeliveries(), q.older(answer.GetNextPageToken())
	p.render(w, r, codeOf(list.Problem), "deliveries.html", list)
}

// deliveryPage is what the page of a delivery shows.
type deliveryPage struct {
	*gatewayv1.Delivery
	Viewer  viewer
	Payload *tree
	Again   bool // it was just redelivered
}

func (p deliveryPages) delivery(w http.ResponseWriter, r *http.Request) {
	answer, err := p.deliveries.GetDelivery(r.Context(), &gatewayv1.GetDeliveryRequest{DeliveryId: r.PathValue("id")})
	if err != nil {
		p.fails(w, r, "GetDelivery", err)
		return
	}
	shown := deliveryPage{Delivery: answer.GetDelivery(), Viewer: p.viewerOf(r.Context()), Again: r.URL.Query().Has("again")}
	if payload := shown.GetPayload(); len(payload) > 0 {
		shown.Payload = parseTree(payload)
	}
	p.render(w, r, http.StatusOK, "delivery.html", shown)
}

// payload is what GitHub sent, byte for byte, as plain text.
func (p deliveryPages) payload(w http.ResponseWriter, r *http.Request) {
	answer, err := p.deliveries.GetDelivery(r.Context(), &gatewayv1.GetDeliveryRequest{DeliveryId: r.PathValue("id")})
	if err != nil {
		p.fails(w, r, "GetDelivery", err)
		return
	}
	secure(w, "text/plain; charset=utf-8")
	_, _ = w.Write(answer.GetDelivery().GetPayload()) // a reader who left is no error
}

// redeliver has every receiver decide again.
func (p deliveryPages) redeliver(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if _, err := p.deliveries.RedeliverDelivery(r.Context(), &gatewayv1.RedeliverDeliveryRequest{DeliveryId: id}); err != nil {
		p.fails(w, r, "RedeliverDelivery", err)
		return
	}
	http.Redirect(w, r, address(p.deps.Base+"/deliveries", id)+"?again=1", http.StatusSeeOther)
}

// whyPage answers why nothing was built.
type whyPage struct {
	Address string
	Answer  *gatewayv1.ExplainAddressResponse // nil: nothing was asked
	Problem string
}

func (p deliveryPages) why(w http.ResponseWriter, r *http.Request) {
	shown := whyPage{Address: strings.TrimSpace(r.URL.Query().Get("address"))}
	if shown.Address == "" { // who may not ask hears so at once
		_, err := p.deliveries.ListDeliveries(r.Context(), &gatewayv1.ListDeliveriesRequest{PageSize: 1})
		if err != nil && !fault.Is(err, fault.Denied) { // who has signed in may, of what they can read
			p.fails(w, r, "ListDeliveries", err)
			return
		}
		p.render(w, r, http.StatusOK, "why.html", shown)
		return
	}
	var err error
	shown.Answer, err = p.deliveries.ExplainAddress(r.Context(), &gatewayv1.ExplainAddressRequest{Address: shown.Address})
	if shown.Problem = invalid(err); err != nil && shown.Problem == "" {
		p.fails(w, r, "ExplainAddress", err)
		return
	}
	p.render(w, r, codeOf(shown.Problem), "why.html", shown)
}

// fate is what became of a delivery at a receiver, as a text.
func fate(f *gatewayv1.Forward) string {
	switch {
	case f.GetDecision() != nil:
		return f.GetDecision().GetText()
	case f.GetError() != "":
		return "not decided after " + wording.Count(int(f.GetAttempts()), "attempt") + ": " + f.GetError()
	default:
		return "not decided yet"
	}
}
