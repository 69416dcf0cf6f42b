package access_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/forge-ci/forge/services/gateway/access"
	"github.com/forge-ci/forge/services/gateway/signin"
	"github.com/forge-ci/forge/services/kit/fault"
)

// everybody is who asks, each with more to say than those before; the last three run this Forge.
const everybody = "- ended stan rita wes ada Boss olga admin"

// who may do what, method by method, in a private repository and in a public one: the
// first of everybody who may, and all after.
//
//nolint:dupword // columns repeat
const matrix = `
forge.gateway.v1.StatusService/GetStatus                    -      -
forge.gateway.v1.DeliveryService/ListDeliveries             Boss   Boss
forge.gateway.v1.DeliveryService/ExplainAddress             rita   -
forge.gateway.v1.DeliveryService/GetDelivery                Boss   Boss
forge.gateway.v1.DeliveryService/RedeliverDelivery          Boss   Boss
forge.gateway.v1.DeliveryService/RecoverDeliveries          Boss   Boss
forge.config.v1.InstallationService/ListInstallations       Boss   Boss
forge.config.v1.InstallationService/GetInstallation         Boss   Boss
forge.config.v1.InstallationService/RefreshInstallations    Boss   Boss
forge.config.v1.BuildConfigService/ValidateBuildConfig      stan   stan
forge.config.v1.BuildConfigService/GetSchema                -      -
forge.config.v1.BuildConfigService/ShowBuildConfig          rita   -
forge.scheduler.v1.BuildService/ListBuilds                  rita   -
forge.scheduler.v1.BuildService/GetBuild                    rita   -
forge.scheduler.v1.BuildService/WatchBuild                  rita   -
forge.scheduler.v1.BuildService/WatchLog                    rita   -
forge.scheduler.v1.BuildService/CreateBuild                 wes    wes
forge.scheduler.v1.BuildService/CreateRemoteBuild           wes    wes
forge.scheduler.v1.BuildService/RetryBuild                  wes    wes
forge.scheduler.v1.BuildService/ApproveBuild                wes    wes
forge.scheduler.v1.BuildService/CancelBuild                 wes    wes
forge.scheduler.v1.BuildService/ExpediteBuild               Boss   Boss
forge.scheduler.v1.BuildService/ListRepositories            -      -
forge.scheduler.v1.BuildService/GetBuildStatistics          rita   -
forge.scheduler.v1.ManualService/GetManual                  rita   -
forge.scheduler.v1.LogService/GetLog                        rita   -
forge.scheduler.v1.LogService/ReadLog                       rita   -
forge.scheduler.v1.LogService/SearchLog                     rita   -
forge.scheduler.v1.RepositoryTokenService/ListRepositoryTokens   wes wes
forge.scheduler.v1.RepositoryTokenService/CreateRepositoryToken  ada ada
forge.scheduler.v1.RepositoryTokenService/DeleteRepositoryToken  ada ada
forge.scheduler.v1.ArtifactService/ListArtifacts            rita   -
forge.scheduler.v1.ArtifactService/ListArtifactFiles        rita   -
forge.scheduler.v1.ArtifactService/DownloadArtifact         rita   -
forge.scheduler.v1.TestService/ListTests                    rita   -
forge.scheduler.v1.TestService/ListFindings                 rita   -
forge.scheduler.v1.TestService/ListFlakyTests               rita   -
forge.scheduler.v1.TestService/ListTestHistory              rita   -
forge.scheduler.v1.ScheduleService/ListSchedules            rita   -
forge.scheduler.v1.AuditService/ListAuditEntries            ada    ada
forge.scheduler.v1.OutgoingWebhookService/ListOutgoingWebhooks Boss Boss
forge.scheduler.v1.EnvironmentService/ListEnvironments      rita   -
forge.scheduler.v1.EnvironmentService/GetEnvironment        rita   -
forge.scheduler.v1.EnvironmentService/FreezeEnvironment     wes    wes
forge.scheduler.v1.EnvironmentService/UnfreezeEnvironment   wes    wes
forge.scheduler.v1.EnvironmentService/RollBackEnvironment   wes    wes
forge.scheduler.v1.EnvironmentService/ReleaseEnvironment    wes    wes
forge.scheduler.v1.CacheService/ListCaches                  rita   -
forge.scheduler.v1.CacheService/DeleteCaches                wes    wes
forge.scheduler.v1.ShellService/OpenShell                   wes    wes
forge.scheduler.v1.ShellService/SendToShell                 wes    wes
forge.scheduler.v1.ShellService/RemoveContainer             wes    wes
forge.scheduler.v1.SecretService/ListSecrets                wes    wes
forge.scheduler.v1.SecretService/SetSecret                  ada    ada
forge.scheduler.v1.SecretService/DeleteSecret               ada    ada
forge.scheduler.v1.SecretService/ListRegistryCredentials    wes    wes
forge.scheduler.v1.SecretService/SetRegistryCredentials     ada    ada
forge.scheduler.v1.SecretService/DeleteRegistryCredentials  ada    ada
forge.reporter.v1.ReporterService/ListTargets               Boss   Boss
forge.reporter.v1.ReporterService/GetTarget                 Boss   Boss
forge.reporter.v1.ReporterService/RetryTarget               Boss   Boss
forge.reporter.v1.ReporterService/VerifyTarget              Boss   Boss
forge.gateway.v1.NoService/NoMethod                         Boss   Boss
`

// requestOf is one of a method about a repository, and about a build of it.
func requestOf(t *testing.T, method, repository string) proto.Message {
	t.Helper()
	service, name, _ := strings.Cut(method, "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		return nil // of a method that there is not
	}
	request := dynamicpb.NewMessage(found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name)).Input())
	for field, value := range map[protoreflect.Name]string{"build_id": "7:" + repository, "repository": repository, "address": repository} {
		if f := request.Descriptor().Fields().ByName(field); f != nil {
			request.Set(f, protoreflect.ValueOfString(value))
		}
	}
	return request
}

func TestWhoMayDoWhat(t *testing.T) {
	w := newWorld(t, nil)
	listed := map[string]bool{}
	names := strings.Fields(everybody)
	for line := range strings.Lines(strings.TrimSpace(matrix)) {
		cells := strings.Fields(line)
		listed["/"+cells[0]] = true
		for n, repository := range []string{"acme/shop", "acme/site"} {
			request := requestOf(t, cells[0], repository)
			for rank, name := range names {
				v := w.viewer(name)
				err := w.control.Check(t.Context(), v, "/"+cells[0], request)
				may := rank >= slices.Index(names, cells[n+1])
				if may != (err == nil) {
					t.Errorf("%s in %s by %s: %v, want %v", cells[0], repository, name, err, may)
				}
				kind := fault.Denied
				if v.ID == 0 {
					kind = fault.Unauthenticated
				}
				if err != nil && !fault.Is(err, kind) {
					t.Errorf("%s in %s by %s is refused by %v", cells[0], repository, name, err)
				}
			}
		}
	}
	for method := range access.Rules() {
		if !listed[method] {
			t.Errorf("%s has a rule that no row holds it to", method)
		}
	}
}

// Where links are open, a build's address shows the build, and no more than that.
func TestOpenLinksShowABuildAndNothingElse(t *testing.T) {
	w := newWorld(t, func(d *access.Deps) { d.OpenLinks = true })
	var open []string
	for method := range access.Rules() {
		if w.control.Check(t.Context(), w.viewer("-"), method, requestOf(t, method[1:], "acme/shop")) == nil {
			open = append(open, method[strings.LastIndex(method, "/")+1:])
		}
	}
	slices.Sort(open)
	want := "[DownloadArtifact GetBuild GetLog GetSchema GetStatus ListArtifactFiles ListArtifacts ListFindings ListRepositories ListTests ReadLog SearchLog WatchBuild WatchLog]"
	if got := fmt.Sprint(open); got != want {
		t.Errorf("open to strangers:\n%s, want\n%s", got, want)
	}
}

// A token that is bound to a repository opens what the scheduler opens to it, which checks it there. Else it is a stranger's: of
// repositories it lists the public ones.
func TestABoundTokenIsTheSchedulersToCheck(t *testing.T) {
	w := newWorld(t, nil)
	var open []string
	for method := range access.Rules() {
		if w.control.Check(t.Context(), signin.Viewer{Bound: true}, method, requestOf(t, method[1:], "acme/shop")) == nil {
			open = append(open, method[strings.LastIndex(method, "/")+1:])
		}
	}
	slices.Sort(open)
	if got := fmt.Sprint(open); got != "[CreateBuild GetManual GetSchema GetStatus ListBuilds ListRepositories]" {
		t.Errorf("passed on:\n%s", got)
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"", "shop", "acme/", "/shop", "acme/shop/x", "acme/../x"} {
		err := w.control.Check(t.Context(), w.viewer("ada"), "/forge.scheduler.v1.SecretService/SetSecret", requestOf(t, "forge.scheduler.v1.SecretService/SetSecret", name))
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestWhoRunsForgeIsNamedAsIntended(t *testing.T) {
	for _, name := range []string{"", "a/b/c", "/team", "org/"} {
		if _, err := access.New(access.Deps{Admins: []string{name}}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}
