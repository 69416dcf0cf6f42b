// Package settings names every setting of Forge, once: its variable, its flag,
// its default and what it does, and turns groups of them into what the kit asks
// for. A binary embeds the groups it needs.
package settings

import (
	"net/netip"
	"time"
)

// Common is what every service takes.
type Common struct {
	DataDir     string `env:"FORGE_DATA_DIR" default:"./forge-data" help:"Where databases, blobs and generated tokens are kept."`
	DatabaseURL string `env:"FORGE_DATABASE_URL" placeholder:"URL" secret:"" help:"postgres://… instead of SQLite in the data directory."`
	BlobURL     string `env:"FORGE_BLOB_URL" name:"blob-url" placeholder:"URL" help:"s3://… or file:///… for finished logs and sources, instead of files in the data directory."`
	AdminToken  string `env:"FORGE_ADMIN_TOKEN" placeholder:"TOKEN" secret:"" help:"Bearer token of admin calls. Default: made at first start, kept in the data directory."`
	Debug       bool   `env:"FORGE_DEBUG" short:"d" help:"Log more."`
}

// Rooms is how services that run apart prove themselves to each other.
type Rooms struct {
	RoomToken  string            `env:"FORGE_ROOM_TOKEN" placeholder:"TOKEN" secret:"" help:"What this service shows to the others."`
	RoomTokens map[string]string `env:"FORGE_ROOM_TOKENS" mapsep:"," placeholder:"ROOM=TOKEN" secret:"" help:"What this service accepts from the others."`
	Certificate
}

// Certificate is what TLS is spoken with: between services that run apart, and
// at a runner address that other machines reach.
type Certificate struct {
	TLSCert string `env:"FORGE_TLS_CERT" placeholder:"FILE" help:"Certificate of this service's gRPC address, whose name is the room, and of the runner address."`
	TLSKey  string `env:"FORGE_TLS_KEY" placeholder:"FILE" help:"Key of that certificate."`
	TLSCA   string `env:"FORGE_TLS_CA" name:"tls-ca" placeholder:"FILE" help:"Authority whose certificates are accepted from the other services."`
}

// Siblings is where the other services are, when they run apart.
type Siblings struct {
	ConfigAddress
	SchedulerAddress
	ReporterAddress
}

// ConfigAddress is where config is, when it runs apart.
type ConfigAddress struct {
	ConfigURL string `env:"FORGE_CONFIG_URL" default:"127.0.0.1:9091" help:"gRPC address of config."`
}

// SchedulerAddress is where the scheduler is, when it runs apart.
type SchedulerAddress struct {
	SchedulerURL string `env:"FORGE_SCHEDULER_URL" default:"127.0.0.1:9092" help:"gRPC address of scheduler."`
}

// ReporterAddress is where the reporter is, when it runs apart.
type ReporterAddress struct {
	ReporterURL string `env:"FORGE_REPORTER_URL" default:"127.0.0.1:9093" help:"gRPC address of reporter."`
}

// GRPC is where a service serves gRPC. The default is the service's own:
// ${grpc_address}.
type GRPC struct {
	GRPCAddress string `env:"FORGE_GRPC_ADDRESS" name:"grpc-address" default:"${grpc_address}" help:"Where gRPC is served, with reflection and health."`
}

// Links is how people reach Forge.
type Links struct {
	ExternalURL string `env:"FORGE_EXTERNAL_URL" default:"http://localhost:9098" help:"Forge's address in the links that people follow from GitHub."`
}

// GitHub is which GitHub it is.
type GitHub struct {
	GitHubAPIURL string `env:"FORGE_GITHUB_API_URL" name:"github-api-url" default:"https://api.github.com" help:"GitHub's REST API; for Enterprise Server https://HOST/api/v3."`
	GitHubURL    string `env:"FORGE_GITHUB_URL" name:"github-url" default:"https://github.com" help:"GitHub's pages; for Enterprise Server https://HOST."`
}

// Gateway is the gateway's own.
type Gateway struct {
	Address        string   `env:"FORGE_ADDRESS" short:"a" default:"0.0.0.0" help:"Where HTTP is served: webhooks, API, pages."`
	Port           int      `env:"FORGE_PORT" short:"p" default:"9098" help:"Port of HTTP."`
	WebhookSecrets []string `env:"FORGE_WEBHOOK_SECRETS" placeholder:"SECRET" secret:"" help:"The webhook secret of the GitHub App; several while one replaces another."`
	AllowedIPs     []string `env:"FORGE_WEBHOOK_ALLOWED_IPS" name:"webhook-allowed-ips" default:"github" help:"Who may deliver webhooks: github (the ranges GitHub publishes), any, or CIDRs."`
	TrustedProxies []string `env:"FORGE_TRUSTED_PROXIES" placeholder:"CIDR" help:"Load balancers whose X-Forwarded-For or Forwarded is believed."`
	HTTPSCert      string   `env:"FORGE_HTTPS_CERT" name:"https-cert" placeholder:"FILE" help:"Certificate of HTTPS; without it, and without ACME, HTTP is spoken."`
	HTTPSKey       string   `env:"FORGE_HTTPS_KEY" name:"https-key" placeholder:"FILE" help:"Key of that certificate."`
	ACMEDomains    []string `env:"FORGE_ACME_DOMAINS" name:"acme-domains" placeholder:"NAME" help:"Get certificates for these names, from Let's Encrypt; port 443 must lead here."`
	ACMEURL        string   `env:"FORGE_ACME_URL" name:"acme-url" placeholder:"URL" help:"Directory of another ACME authority."`

	ReceiversFile   string        `env:"FORGE_RECEIVERS_FILE" placeholder:"FILE" help:"File with receivers of your own, whom what GitHub sends is forwarded to."`
	ReceiversTryFor time.Duration `env:"FORGE_RECEIVERS_TRY_FOR" default:"72h" help:"How long a delivery is tried at a receiver that does not take it; 0 is for ever."`

	OAuthClientID     string        `env:"FORGE_OAUTH_CLIENT_ID" name:"oauth-client-id" placeholder:"ID" help:"Client ID, from the App's settings page on GitHub. With the secret, people sign in with GitHub."`
	OAuthClientSecret string        `env:"FORGE_OAUTH_CLIENT_SECRET" name:"oauth-client-secret" placeholder:"SECRET" secret:"" help:"A client secret of the App, from the same page."`
	Admins            []string      `env:"FORGE_ADMINS" placeholder:"LOGIN" help:"Who runs this Forge and may do all that the admin token allows: logins, and teams as org/team. Default: none."`
	BuildLinks        string        `env:"FORGE_BUILD_LINKS" default:"" enum:",open,signed-in" placeholder:"HOW" help:"Whom a build's address shows the build of a private repository: open, everybody who has it, or signed-in, who can read the repository. Default: signed-in once people sign in, else open."`
	SessionIdle       time.Duration `env:"FORGE_SESSION_IDLE" default:"168h" help:"How long a browser stays signed in that is not used."`
	SessionLife       time.Duration `env:"FORGE_SESSION_LIFE" default:"720h" help:"How long a browser stays signed in at most."`
	SessionsKey       string        `env:"FORGE_SESSIONS_KEY" placeholder:"KEY" secret:"" help:"What GitHub's tokens of people are encrypted with: 64 hexadecimal digits; several, the first encrypts. Default: made at first start, kept in the data directory."`

	TracesMemory    Size          `env:"FORGE_TRACES_MEMORY" default:"64MiB" help:"How much memory the traces of the last hours may take; 0 keeps none."`
	TracesRetention time.Duration `env:"FORGE_TRACES_RETENTION" default:"24h" help:"How long a trace is kept after its last span, as far as that memory allows."`
	TraceURL        string        `env:"FORGE_TRACE_URL" placeholder:"URL" help:"Where traces are shown instead of Forge's own page, with {trace_id} in it, such as http://localhost:16686/trace/{trace_id}."`

	PayloadRetention  time.Duration `env:"FORGE_PAYLOAD_RETENTION" default:"168h" help:"How long the payloads of webhooks are kept."`
	DeliveryRetention time.Duration `env:"FORGE_DELIVERY_RETENTION" default:"2160h" help:"How long it is known which webhooks came and what became of them."`
}

// App is the GitHub App; only config holds it.
type App struct {
	GitHubAppID          int64  `env:"FORGE_GITHUB_APP_ID" name:"github-app-id" placeholder:"ID" help:"App ID, from the App's settings page on GitHub."`
	GitHubPrivateKey     string `env:"FORGE_GITHUB_PRIVATE_KEY" name:"github-private-key" placeholder:"PEM" secret:"" help:"The App's private key itself."`
	GitHubPrivateKeyFile string `env:"FORGE_GITHUB_PRIVATE_KEY_FILE" name:"github-private-key-file" placeholder:"FILE" help:"File with the App's private key, as downloaded from GitHub."`

	MirrorsDisk Size `env:"FORGE_MIRRORS_DISK" default:"20GiB" help:"How much disk the copies of repositories may take that builds are checked out from; 0 keeps each only while it is used."`
}

// Scheduler is the scheduler's own.
type Scheduler struct {
	RunnerAddress       string        `env:"FORGE_RUNNER_ADDRESS" placeholder:"ADDRESS" help:"Where forgexec is served: unix:///path, or host:port with TLS for builds on other machines. Default: a unix socket in the data directory."`
	RunnerURL           string        `env:"FORGE_RUNNER_URL" placeholder:"URL" help:"Where forgexec reaches the runner address: unix:///path or host:port. Default: the runner address."`
	Engine              string        `env:"FORGE_ENGINE" default:"docker" help:"What runs builds: ${engines}."`
	Capacity            int           `env:"FORGE_CAPACITY" placeholder:"N" help:"Builds at once. Default: the number of CPUs, as far as the Docker engine has networks for them; 100 with swarm, whose machines decide."`
	Warm                string        `env:"FORGE_WARM" default:"auto" placeholder:"N" help:"Containers that wait for builds of the images built last, so that these start at once, with engine docker: a number, 0 for none, or auto: as many as builds run at once, at most 4, and no more than take 5 % of the free memory."`
	StartTimeout        time.Duration `env:"FORGE_START_TIMEOUT" default:"15m" help:"How long the engine may take to start a build, from when it is asked first; more than a machine takes to boot."`
	MachineGrace        time.Duration `env:"FORGE_MACHINE_GRACE" default:"2m" help:"How long a build may be silent on a machine that the engine does not reach, before it is lost."`
	IntegrationBranches []string      `env:"FORGE_INTEGRATION_BRANCHES" default:"default,master,main" help:"Branches that pull requests are tested for and staging is deployed from: names, patterns, and default for the default branch of each repository."`
	ProductionBranches  []string      `env:"FORGE_PRODUCTION_BRANCHES" default:"production" help:"Branches that production is deployed from: names, patterns, and default for the default branch of each repository."`
	TrustedBots         []string      `env:"FORGE_TRUSTED_BOTS" placeholder:"LOGIN" help:"Bots whose pull requests get secrets, such as renovate. Default: none."`
	ForkPolicy          string        `env:"FORGE_FORK_POLICY" default:"approve" enum:"approve,run,never" help:"What becomes of pull requests from forks: approve, run, never."`
	Limits
	Keep           time.Duration `env:"FORGE_KEEP" default:"0" help:"How long the container of a job that failed is kept, for forge shell, where .forge.yml does not say; 0 is not at all."`
	MaxKeep        time.Duration `env:"FORGE_MAX_KEEP" default:"1h" help:"How long it is kept whatever .forge.yml says; 0 is not at all."`
	SecretsKey     string        `env:"FORGE_SECRETS_KEY" placeholder:"KEY" secret:"" help:"What secrets are encrypted with: 64 hexadecimal digits; several, the first encrypts. Default: made at first start, kept in the data directory."`
	SecretsKeyFile string        `env:"FORGE_SECRETS_KEY_FILE" placeholder:"FILE" help:"File with that key, or those keys."`
	Grants
	LogRetention      time.Duration     `env:"FORGE_LOG_RETENTION" default:"720h" help:"How long logs are kept after the end of their builds; 0 is for good."`
	CacheLimit        Size              `env:"FORGE_CACHE_LIMIT" default:"10GiB" help:"How much the caches of a repository may take, as they are stored. Those of forks and pull requests go first, then those used longest ago."`
	CacheRetention    time.Duration     `env:"FORGE_CACHE_RETENTION" default:"336h" help:"How long a cache is kept that no build restores."`
	ArtifactLimit     Size              `env:"FORGE_ARTIFACT_LIMIT" default:"2GiB" help:"How large an artifact may be."`
	ArtifactRetention time.Duration     `env:"FORGE_ARTIFACT_RETENTION" default:"720h" help:"How long artifacts are kept where .forge.yml does not say."`
	BuildRetention    time.Duration     `env:"FORGE_BUILD_RETENTION" default:"2160h" help:"How long builds are kept after their end; 0 is for good."`
	AuditRetention    time.Duration     `env:"FORGE_AUDIT_RETENTION" default:"17520h" help:"How long it is known who did what; 0 is for good."`
	WebhooksOut       map[string]string `env:"FORGE_WEBHOOKS_OUT" name:"webhooks-out" mapsep:";" placeholder:"NAME=URL" secret:"" help:"Addresses that are told of builds and deploys; several with semicolons. Default: none."`
	WebhooksOutSecret string            `env:"FORGE_WEBHOOKS_OUT_SECRET" name:"webhooks-out-secret" placeholder:"SECRET" secret:"" help:"What they are signed with."`
	WebhooksOutTryFor time.Duration     `env:"FORGE_WEBHOOKS_OUT_TRY_FOR" name:"webhooks-out-try-for" default:"72h" help:"How long an event is tried at an address that does not take it; 0 is for ever."`
	NotifyChannels    map[string]string `env:"FORGE_NOTIFY_CHANNELS" mapsep:";" placeholder:"NAME=ADDRESS" secret:"" help:"Chats that any repository's notify may name; several with semicolons. Default: none."`
	NotifyPrivate     bool              `env:"FORGE_NOTIFY_PRIVATE" help:"Addresses of chats that repositories have may lead to private addresses, too."`
	ForgexecImage     string            `env:"FORGE_FORGEXEC_IMAGE" placeholder:"IMAGE" help:"With swarm: an image with forgexec, for every platform of its machines. Default: that of this release."`
	Build             Build             `embed:"" prefix:"build-"`
	Image             Image             `embed:""`
	Swarm             Swarm             `embed:"" prefix:"swarm-"`
}

// Image is what is set of images that builds build.
type Image struct {
	BuildKitURL string         `env:"FORGE_BUILDKIT_URL" name:"buildkit-url" placeholder:"URL" help:"A BuildKit that builds images, tcp://host:port or unix:///path. Default: the Docker engine's own, with engine docker."`
	Networks    []netip.Prefix `env:"FORGE_IMAGE_NETWORKS" name:"image-networks" placeholder:"CIDR" help:"Private networks that registries of images may be in, and what a Dockerfile adds by address, such as 10.0.0.0/8. Default: none."`
	Scanner     string         `env:"FORGE_IMAGE_SCANNER" name:"image-scanner" placeholder:"IMAGE" help:"The image that makes SBOMs of images that the BuildKit at FORGE_BUILDKIT_URL builds, such as docker/buildkit-syft-scanner:stable-1. Default: none are made."`
}

// Limits bound what builds may use.
type Limits struct {
	Timeout    time.Duration `env:"FORGE_TIMEOUT" default:"1h" help:"How long a build may run where .forge.yml does not say."`
	MaxTimeout time.Duration `env:"FORGE_MAX_TIMEOUT" default:"6h" help:"How long a build may run whatever .forge.yml says."`
	CPUs       float64       `env:"FORGE_CPUS" name:"cpus" placeholder:"N" help:"Cores of a build where .forge.yml does not say. Default: no limit."`
	MaxCPUs    float64       `env:"FORGE_MAX_CPUS" name:"max-cpus" placeholder:"N" help:"Cores of a build whatever .forge.yml says. Default: no limit."`
	Memory     Size          `env:"FORGE_MEMORY" placeholder:"SIZE" help:"Memory of a build where .forge.yml does not say, such as 4GiB. Default: no limit."`
	MaxMemory  Size          `env:"FORGE_MAX_MEMORY" placeholder:"SIZE" help:"Memory of a build whatever .forge.yml says. Default: no limit."`
	LogLimit   Size          `env:"FORGE_LOG_LIMIT" default:"64MiB" help:"How long the log of a build may be, such as 64MiB; 0 is no limit."`
}

// Grants are what of the host builds may have besides.
type Grants struct {
	BuildPorts          []PortRange       `env:"FORGE_BUILD_PORTS" placeholder:"PORT" help:"Ports of the host that builds may publish theirs at, such as 8080,9000-9099. Default: none."`
	BuildVolumes        map[string]string `env:"FORGE_BUILD_VOLUMES" mapsep:";" placeholder:"NAME=DIR" help:"Folders of the Docker engine's host that builds of trusted repositories may mount, such as cache=/srv/cache; several with semicolons. Default: none."`
	RegistryCommands    []string          `env:"FORGE_REGISTRY_COMMANDS" sep:";" placeholder:"ENTRY" help:"Commands that print credentials of registries, as HOST REPOSITORIES USES COMMAND; several with semicolons. Default: none."`
	TrustedRepositories []string          `env:"FORGE_TRUSTED_REPOSITORIES" placeholder:"PATTERN" help:"Repositories whose merged and pushed commits may run privileged, which is as good as root on the host, such as acme/*. Default: none."`
}

// Local is what builds of a working tree take, which no server runs.
type Local struct {
	Engine   string `env:"FORGE_ENGINE" placeholder:"NAME" help:"What runs the commands: docker or process. Default: docker where it answers, else process."`
	Capacity int    `env:"FORGE_CAPACITY" placeholder:"N" help:"Jobs at once. Default: the number of CPUs."`
	Limits
	Grants
	IntegrationBranches []string `env:"FORGE_INTEGRATION_BRANCHES" default:"default,master,main" help:"Branches that pull requests are tested for, as the server has them."`
	ProductionBranches  []string `env:"FORGE_PRODUCTION_BRANCHES" default:"production" help:"Branches whose pull requests run staging, as the server has them."`
	Build               Build    `embed:"" prefix:"build-"`
}

// Swarm is the swarm engine's own.
type Swarm struct {
	Constraints     []string `env:"FORGE_SWARM_CONSTRAINTS" placeholder:"EXPR" help:"Machines that builds are placed on, such as node.labels.builds==true. Default: any."`
	ForkConstraints []string `env:"FORGE_SWARM_FORK_CONSTRAINTS" placeholder:"EXPR" help:"Machines that builds of forks are placed on. Default: those of all builds."`
	MTU             int      `env:"FORGE_SWARM_MTU" name:"mtu" placeholder:"BYTES" help:"MTU of builds' overlay networks. Default: that of Docker's driver."`
}

// Build is what is set of builds, whatever engine runs them. See CheckEngine.
type Build struct {
	Environment    map[string]string `env:"FORGE_BUILD_ENVIRONMENT" mapsep:";" placeholder:"NAME=VALUE" help:"Variables that every build has, unless its .forge.yml says another value; several with semicolons. Default: those of proxies that Forge itself has."`
	MTU            int               `env:"FORGE_BUILD_MTU" name:"mtu" placeholder:"BYTES" help:"MTU of builds' networks. Default: that of the Docker engine's own network."`
	Pull           string            `env:"FORGE_BUILD_PULL" default:"missing" enum:"missing,always" help:"When the images of builds are pulled: missing, always."`
	RegistriesFile string            `env:"FORGE_BUILD_REGISTRIES_FILE" placeholder:"FILE" help:"Credentials for registries, as docker login keeps them. Default: Docker's own file."`
	Pids           int64             `env:"FORGE_BUILD_PIDS" default:"4096" help:"Processes and threads a build's container may have."`
	Disk           string            `env:"FORGE_BUILD_DISK" placeholder:"SIZE" help:"Disk a build's container may fill, such as 10GiB, where Docker's storage can bound that. Default: no limit."`
	User           string            `env:"FORGE_BUILD_USER" placeholder:"USER" help:"Whom commands run as, such as 1000:1000. Default: as the image says."`
	ReadOnly       bool              `env:"FORGE_BUILD_READ_ONLY" help:"Builds can write to their workspace and /tmp alone."`
	RunnerDir      string            `env:"FORGE_BUILD_RUNNER_DIR" placeholder:"DIR" help:"The folder of the runner's socket, as the Docker engine's host knows it. Default: as the runner URL says."`
}

// Reporter is the reporter's own.
type Reporter struct {
	Report          string        `env:"FORGE_REPORT" default:"statuses" enum:"statuses,checks,both" help:"How GitHub is told of builds: statuses, checks, both."`
	ReportRetention time.Duration `env:"FORGE_REPORT_RETENTION" default:"720h" help:"How long what GitHub was told is remembered."`
}

// ForBuilds are the variables Forge gives to builds and to forgexec. A Forge
// that runs inside a Forge build finds them in its environment: they are no
// settings.
var ForBuilds = []string{
	"FORGE_ACTION", "FORGE_PULL_REQUEST", "FORGE_OWNER", "FORGE_REPO", "FORGE_SHA", "FORGE_REF", "FORGE_BASE_REF",
	"FORGE_BASE_SHA", "FORGE_BEFORE_SHA", "FORGE_TAG", "FORGE_MERGE_SHA", "FORGE_DEFAULT_BRANCH", "FORGE_COMMIT_MESSAGE", "FORGE_COMMIT_COUNT", "FORGE_BUILD_ID", "FORGE_BUILD_URL", "FORGE_VERSION", "FORGE_WORKSPACE",
	"FORGE_RUNNER_TOKEN", "FORGE_RUNNER_WAITS", "FORGE_RUNNER_CA", "FORGE_RUNNER_NOTICE", "FORGE_RUNNER_STATE", "FORGE_RUNNER_HOLD", "FORGE_RUNNER_AWAIT",
}

// Renamed are variables of old, by which a setting is no longer read, with those
// by which it is.
var Renamed = map[string]string{
	"FORGE_DOCKER_PULL":        "FORGE_BUILD_PULL",
	"FORGE_DOCKER_CONFIG_FILE": "FORGE_BUILD_REGISTRIES_FILE",
	"FORGE_DOCKER_PIDS":        "FORGE_BUILD_PIDS",
	"FORGE_DOCKER_DISK":        "FORGE_BUILD_DISK",
	"FORGE_DOCKER_USER":        "FORGE_BUILD_USER",
	"FORGE_DOCKER_READ_ONLY":   "FORGE_BUILD_READ_ONLY",
	"FORGE_DOCKER_RUNNER_DIR":  "FORGE_BUILD_RUNNER_DIR",
}
