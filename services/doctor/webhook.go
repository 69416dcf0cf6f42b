package doctor

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	gogithub "github.com/google/go-github/v62/github"

	"github.com/forge-ci/forge/services/kit/github"
)

const webhook = "webhook"

// hook looks at how GitHub is to deliver, and reports whether it does at all.
func (d *doctor) hook(ctx context.Context, r *report, client *gogithub.Client) bool {
	config, _, err := client.Apps.GetHookConfig(ctx)
	if err != nil {
		r.broken(webhook, "GitHub does not show it: "+github.Classify(err).Text, "switch it on, on the App's settings page under Webhook: Active")
		return false
	}
	fix := fmt.Sprintf("set it on the App's settings page under Webhook: %s/v1/listen", strings.TrimRight(d.Settings.ExternalURL, "/"))
	address, err := url.Parse(config.GetURL())
	switch {
	case config.GetURL() == "":
		r.broken(webhook, "the App has no webhook address", fix)
		return false
	case err != nil || !strings.HasSuffix(strings.TrimRight(address.Path, "/"), "/v1/listen"):
		r.broken(webhook, fmt.Sprintf("GitHub delivers to %s, where Forge takes nothing", config.GetURL()), fix)
		return false
	case config.GetSecret() == "":
		r.broken(webhook, "the App's webhook has no secret, so Forge believes nothing that comes", "enter that of FORGE_WEBHOOK_SECRETS on the App's settings page")
		return false
	case config.GetInsecureSSL() == "1":
		r.warn(webhook, "GitHub delivers without looking at Forge's certificate: who is between can read and forge", "have Forge serve a good certificate, and switch SSL verification on, on the App's settings page")
	}
	return true
}

// deliveries says how GitHub's deliveries fare, from GitHub's own record of them.
func (d *doctor) deliveries(ctx context.Context, r *report, client *gogithub.Client) {
	const check = "deliveries"
	all, _, err := client.Apps.ListHookDeliveries(ctx, &gogithub.ListCursorOptions{PerPage: 100})
	if err != nil {
		r.broken(check, github.Classify(err).Text, "try again")
		return
	}
	if len(all) > 0 && succeeded(all[0]) {
		d.failed(r, all)
		return
	}
	if !d.runs {
		r.skip(check, "whether they arrive can be seen while Forge runs; what comes meanwhile it recovers at its start")
		return
	}
	ping := newestPing(all)
	if ping == nil {
		if len(all) == 0 {
			r.warn(check, "GitHub has delivered nothing within three days", "open a pull request, and look again")
			return
		}
		d.refusal(r, all[0])
		return
	}
	tried, err := d.redeliver(ctx, client, ping)
	switch {
	case err != nil:
		r.warn(check, "GitHub's ping was to be sent again: "+err.Error(), "see the App's settings page under Advanced")
	case succeeded(tried):
		r.finef(webhook, "GitHub's ping was sent again, and arrived")
		d.failed(r, all)
	default:
		d.refusal(r, tried)
	}
}

func succeeded(delivery *gogithub.HookDelivery) bool {
	return delivery.GetStatusCode() >= 200 && delivery.GetStatusCode() < 300
}

func newestPing(all []*gogithub.HookDelivery) *gogithub.HookDelivery {
	for _, delivery := range all {
		if delivery.GetEvent() == "ping" {
			return delivery
		}
	}
	return nil
}

// redeliver has GitHub send its ping once more, and waits for how that went.
func (d *doctor) redeliver(ctx context.Context, client *gogithub.Client, ping *gogithub.HookDelivery) (*gogithub.HookDelivery, error) {
	if _, _, err := client.Apps.RedeliverHookDelivery(ctx, ping.GetID()); err != nil && !isAccepted(err) {
		return nil, err
	}
	for d.wait(ctx) {
		all, _, err := client.Apps.ListHookDeliveries(ctx, &gogithub.ListCursorOptions{PerPage: 20})
		if err != nil {
			return nil, err
		}
		for _, one := range all {
			if one.GetGUID() == ping.GetGUID() && one.GetRedelivery() && one.GetID() > ping.GetID() {
				return one, nil
			}
		}
	}
	return nil, ctx.Err()
}

func isAccepted(err error) bool {
	_, accepted := err.(*gogithub.AcceptedError) //nolint:errorlint // go-github's own, not wrapped
	return accepted
}

// refusal says why a delivery did not come through.
func (d *doctor) refusal(r *report, failed *gogithub.HookDelivery) {
	at := failed.GetDeliveredAt().Local().Format(time.DateTime) //nolint:gosmopolitan // people read their own clock
	switch status := failed.GetStatusCode(); {
	case status == http.StatusUnauthorized:
		r.broken("webhook secret", "GitHub signs with another secret than FORGE_WEBHOOK_SECRETS: Forge refused its delivery of "+at, "enter the same on the App's settings page under Webhook secret")
	case status == http.StatusForbidden:
		r.broken(webhook, fmt.Sprintf("Forge takes webhooks from other addresses than GitHub's delivery of %s came from", at), "set FORGE_WEBHOOK_ALLOWED_IPS, or FORGE_TRUSTED_PROXIES to the proxy in front")
	case status == 0:
		r.broken(webhook, fmt.Sprintf("GitHub does not reach it: %q at %s", failed.GetStatus(), at), "have its address lead here from outside: name, firewall, proxy, certificate")
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status >= 300 && status < 400:
		r.broken(webhook, fmt.Sprintf("something else than Forge answers GitHub, with %d at %s", status, at), "have its address lead to Forge")
	default:
		r.broken(webhook, fmt.Sprintf("GitHub's delivery of %s was answered with %d", at, status), "see Forge's log, and that of the proxy in front")
	}
}

// failed counts what did not come through and was not sent again since.
func (d *doctor) failed(r *report, all []*gogithub.HookDelivery) {
	const check = "deliveries"
	came, lost := map[string]bool{}, map[string]bool{}
	for _, delivery := range all {
		if succeeded(delivery) {
			came[delivery.GetGUID()] = true
		}
	}
	for _, delivery := range all {
		if !came[delivery.GetGUID()] && delivery.GetEvent() != "ping" {
			lost[delivery.GetGUID()] = true
		}
	}
	if len(lost) > 0 {
		r.warn(check, fmt.Sprintf("%d of the last %d never arrived", len(lost), len(came)+len(lost)), "have them sent again: forge recover")
		return
	}
	r.finef(check, "the last %d arrived", len(came))
}
