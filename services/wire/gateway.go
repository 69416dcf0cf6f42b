package wire

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/forge-ci/forge/services/gateway"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/gateway/traces"
	"github.com/forge-ci/forge/services/kit/daemon"
	"github.com/forge-ci/forge/services/kit/sqldb"
	"github.com/forge-ci/forge/services/kit/telemetry"
	"github.com/forge-ci/forge/services/settings"
)

// GatewaySettings are those of the gateway in a process of its own.
type GatewaySettings struct {
	Process
	settings.Links
	settings.GitHub
	settings.Gateway
	settings.Siblings
}

func (s GatewaySettings) siblings() map[string]string {
	return map[string]string{"config": s.ConfigURL, "scheduler": s.SchedulerURL, "reporter": s.ReporterURL}
}

// people says who is who. A key is made, or missing, only where people sign in.
func (s GatewaySettings) people() (gateway.People, error) {
	admin, err := s.Admin()
	if err != nil {
		return gateway.People{}, err
	}
	people := gateway.People{AdminToken: admin, Admins: s.Admins, OpenLinks: s.OpenLinks(), SignIn: signin.Config{
		ClientID: s.OAuthClientID, ClientSecret: s.OAuthClientSecret, Idle: s.SessionIdle, Life: s.SessionLife,
	}}
	if s.OAuthClientID != "" {
		people.SignIn.Keys, err = s.SessionKeys(s.Common)
	}
	return people, err
}

// Gateway assembles the gateway, which calls every room, itself included.
func Gateway(ctx context.Context, s GatewaySettings, tel *telemetry.Telemetry, peers Peers) (_ *Room, err error) {
	var opened closers
	defer opened.closeIf(&err)
	secrets, err := s.Secrets()
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(s.CheckExternalURL(), s.CheckTraceURL()); err != nil {
		return nil, err
	}
	people, err := s.people()
	if err != nil {
		return nil, err
	}
	receivers, err := gateway.ReadReceivers(s.ReceiversFile)
	if err != nil {
		return nil, fmt.Errorf("FORGE_RECEIVERS_FILE: %w", err)
	}
	web, err := s.ListenHTTP(ctx)
	if err != nil {
		return nil, err
	}
	opened.add(web.Close)
	db, err := sqldb.Open(ctx, s.Database("gateway", gateway.Migrations(), tel.Log))
	if err != nil {
		return nil, err
	}
	opened.add(db.Close)
	if err := db.Observe(tel.Meter, "gateway", tel.Log); err != nil {
		return nil, err
	}
	kept := traces.New(traces.Config{Bytes: int64(s.TracesMemory), Age: s.TracesRetention, Now: time.Now})
	service, err := gateway.New(gateway.Deps{ //nolint:contextcheck // its handlers have their requests'
		DB: db, Self: peers["gateway"], Receivers: peers,
		Outside: gateway.Outside{Receivers: receivers, TryFor: s.ReceiversTryFor},
		Webhook: gateway.Webhook{Secrets: secrets, AllowedIPs: s.AllowedIPs, TrustedProxies: s.TrustedProxies},
		GitHub:  gateway.GitHub{URL: s.GitHubURL, APIURL: s.GitHubAPIURL},
		People:  people,
		TLS: gateway.TLS{
			Cert: s.HTTPSCert, Key: s.HTTPSKey,
			Domains: s.ACMEDomains, Authority: s.ACMEURL, Cache: filepath.Join(s.DataDir, "acme"),
		},
		Retention: gateway.Retention{Payloads: s.PayloadRetention, Deliveries: s.DeliveryRetention},
		Traces:    kept, TraceURL: s.TraceURL,
		Version: settings.Version, ExternalURL: s.ExternalURL,
		Log: tel.Log, Tracer: tel.Tracer, Meter: tel.Meter,
	})
	if err != nil {
		return nil, err
	}
	room := &Room{
		Register: service.Register,
		Access:   gateway.Access(),
		Parts: []daemon.Part{
			daemon.Background("relay", service.Run),
			daemon.Background("HTTP", func(ctx context.Context) error { return service.Serve(ctx, web) }),
		},
		Close:       opened.close,
		Ready:       answers("gateway", db),
		Schema:      db.Schema,
		CallsItself: true,
		OTLP:        traces.Intake{Store: kept},
		HTTP:        web.Addr(),
	}
	if s.TracesMemory > 0 {
		room.Spans = kept
	}
	return room, nil
}
