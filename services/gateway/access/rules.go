package access

import (
	configv1 "github.com/forge-ci/forge/gen/forge/config/v1"
	gatewayv1 "github.com/forge-ci/forge/gen/forge/gateway/v1"
	reporterv1 "github.com/forge-ci/forge/gen/forge/reporter/v1"
	schedulerv1 "github.com/forge-ci/forge/gen/forge/scheduler/v1"
)

// Role is what somebody must be to make a call.
type Role int

// The roles, each with what those before it may.
const (
	Anyone   Role = iota // strangers, too
	SignedIn             // whoever has signed in, or shows a token
	Reader               // who can read the repository on GitHub; anyone where it is public
	Writer               // who has write access to it
	Manager              // who is an admin of it
	Operator             // who runs this Forge
)

// how the repository of a call is found.
type how int

const (
	ofNone how = iota
	// ofBuild is by the request's build_id.
	ofBuild
	// ofRepository is by the request's repository, owner/name.
	ofRepository
	// ofAddress is by the request's address, of a page on GitHub or of a build.
	ofAddress
	// ofEach is by each item of the answer: those that somebody may not see are left
	// out. A request that names a repository is held to that, too.
	ofEach
)

// Rule is who may make a call.
type Rule struct {
	Role Role
	of   how
	// bound is that who shows a token that is bound to a repository may, as far as the
	// scheduler says.
	bound bool
	// link is that whoever knows the build's address may, where links are open.
	link bool
}

// Rules has a row for each method with an HTTP binding. What the gateway itself answers
// without a check of its own, deliveries of webhooks and sign-in, has none.
func Rules() map[string]Rule {
	return map[string]Rule{
		gatewayv1.StatusService_GetStatus_FullMethodName: {Role: Anyone},

		gatewayv1.DeliveryService_ListDeliveries_FullMethodName:    {Role: Operator},
		gatewayv1.DeliveryService_ExplainAddress_FullMethodName:    {Role: Reader, of: ofAddress},
		gatewayv1.DeliveryService_GetDelivery_FullMethodName:       {Role: Operator},
		gatewayv1.DeliveryService_RedeliverDelivery_FullMethodName: {Role: Operator},
		gatewayv1.DeliveryService_RecoverDeliveries_FullMethodName: {Role: Operator},

		configv1.InstallationService_ListInstallations_FullMethodName:    {Role: Operator},
		configv1.InstallationService_GetInstallation_FullMethodName:      {Role: Operator},
		configv1.InstallationService_RefreshInstallations_FullMethodName: {Role: Operator},
		configv1.BuildConfigService_ValidateBuildConfig_FullMethodName:   {Role: SignedIn},
		configv1.BuildConfigService_ShowBuildConfig_FullMethodName:       {Role: Reader, of: ofRepository},
		configv1.BuildConfigService_GetSchema_FullMethodName:             {Role: Anyone},

		schedulerv1.BuildService_ListBuilds_FullMethodName:         {Role: Reader, of: ofEach, bound: true},
		schedulerv1.BuildService_ListRepositories_FullMethodName:   {Role: Reader, of: ofEach},
		schedulerv1.BuildService_GetBuildStatistics_FullMethodName: {Role: Reader, of: ofRepository},
		schedulerv1.BuildService_GetBuild_FullMethodName:           {Role: Reader, of: ofBuild, link: true},
		schedulerv1.BuildService_WatchBuild_FullMethodName:         {Role: Reader, of: ofBuild, link: true},
		schedulerv1.BuildService_WatchLog_FullMethodName:           {Role: Reader, of: ofBuild, link: true},
		schedulerv1.BuildService_CreateBuild_FullMethodName:        {Role: Writer, of: ofRepository, bound: true},
		schedulerv1.BuildService_CreateRemoteBuild_FullMethodName:  {Role: Writer, of: ofRepository},
		schedulerv1.BuildService_RetryBuild_FullMethodName:         {Role: Writer, of: ofBuild},
		schedulerv1.BuildService_ApproveBuild_FullMethodName:       {Role: Writer, of: ofBuild},
		schedulerv1.BuildService_CancelBuild_FullMethodName:        {Role: Writer, of: ofBuild},
		// It has the builds of other repositories wait.
		schedulerv1.BuildService_ExpediteBuild_FullMethodName: {Role: Operator},

		schedulerv1.ManualService_GetManual_FullMethodName: {Role: Reader, of: ofRepository, bound: true},
		schedulerv1.LogService_GetLog_FullMethodName:       {Role: Reader, of: ofBuild, link: true},
		schedulerv1.LogService_ReadLog_FullMethodName:      {Role: Reader, of: ofBuild, link: true},
		schedulerv1.LogService_SearchLog_FullMethodName:    {Role: Reader, of: ofBuild, link: true},

		schedulerv1.ArtifactService_ListArtifacts_FullMethodName:     {Role: Reader, of: ofBuild, link: true},
		schedulerv1.ArtifactService_ListArtifactFiles_FullMethodName: {Role: Reader, of: ofBuild, link: true},
		schedulerv1.ArtifactService_DownloadArtifact_FullMethodName:  {Role: Reader, of: ofBuild, link: true},
		schedulerv1.TestService_ListTests_FullMethodName:             {Role: Reader, of: ofBuild, link: true},
		schedulerv1.TestService_ListFindings_FullMethodName:          {Role: Reader, of: ofBuild, link: true},
		schedulerv1.TestService_ListFlakyTests_FullMethodName:        {Role: Reader, of: ofRepository},
		schedulerv1.TestService_ListTestHistory_FullMethodName:       {Role: Reader, of: ofRepository},

		schedulerv1.ScheduleService_ListSchedules_FullMethodName:               {Role: Reader, of: ofEach},
		schedulerv1.OutgoingWebhookService_ListOutgoingWebhooks_FullMethodName: {Role: Operator},

		schedulerv1.AuditService_ListAuditEntries_FullMethodName: {Role: Manager, of: ofRepository},

		schedulerv1.EnvironmentService_ListEnvironments_FullMethodName:    {Role: Reader, of: ofEach},
		schedulerv1.EnvironmentService_GetEnvironment_FullMethodName:      {Role: Reader, of: ofRepository},
		schedulerv1.EnvironmentService_FreezeEnvironment_FullMethodName:   {Role: Writer, of: ofRepository},
		schedulerv1.EnvironmentService_UnfreezeEnvironment_FullMethodName: {Role: Writer, of: ofRepository},
		schedulerv1.EnvironmentService_RollBackEnvironment_FullMethodName: {Role: Writer, of: ofRepository},
		schedulerv1.EnvironmentService_ReleaseEnvironment_FullMethodName:  {Role: Writer, of: ofRepository},

		// Whoever may not set secrets is given none there, which the scheduler sees to.
		schedulerv1.ShellService_OpenShell_FullMethodName:       {Role: Writer, of: ofBuild},
		schedulerv1.ShellService_SendToShell_FullMethodName:     {Role: Writer, of: ofBuild},
		schedulerv1.ShellService_RemoveContainer_FullMethodName: {Role: Writer, of: ofBuild},

		schedulerv1.CacheService_ListCaches_FullMethodName:   {Role: Reader, of: ofRepository},
		schedulerv1.CacheService_DeleteCaches_FullMethodName: {Role: Writer, of: ofRepository},

		// A secret may be another's key to what no writer of the repository may touch.
		schedulerv1.SecretService_ListSecrets_FullMethodName:  {Role: Writer, of: ofRepository},
		schedulerv1.SecretService_SetSecret_FullMethodName:    {Role: Manager, of: ofRepository},
		schedulerv1.SecretService_DeleteSecret_FullMethodName: {Role: Manager, of: ofRepository},
		// And so may what is shown to a registry.
		schedulerv1.SecretService_ListRegistryCredentials_FullMethodName:   {Role: Writer, of: ofRepository},
		schedulerv1.SecretService_SetRegistryCredentials_FullMethodName:    {Role: Manager, of: ofRepository},
		schedulerv1.SecretService_DeleteRegistryCredentials_FullMethodName: {Role: Manager, of: ofRepository},

		// A token of a repository builds there for as long as it is good, whoever made it.
		schedulerv1.RepositoryTokenService_ListRepositoryTokens_FullMethodName:  {Role: Writer, of: ofRepository},
		schedulerv1.RepositoryTokenService_CreateRepositoryToken_FullMethodName: {Role: Manager, of: ofRepository},
		schedulerv1.RepositoryTokenService_DeleteRepositoryToken_FullMethodName: {Role: Manager, of: ofRepository},

		reporterv1.ReporterService_ListTargets_FullMethodName:  {Role: Operator},
		reporterv1.ReporterService_GetTarget_FullMethodName:    {Role: Operator},
		reporterv1.ReporterService_RetryTarget_FullMethodName:  {Role: Operator},
		reporterv1.ReporterService_VerifyTarget_FullMethodName: {Role: Operator},
	}
}
