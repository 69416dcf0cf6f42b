// Package image has BuildKit build images that a build's files describe, and pushes them.
//
// A build's container never reaches BuildKit. Forge speaks to it, and says of each build:
//
//   - The Dockerfile frontend runs in this process (frontend.go), also where a "# syntax="
//     line names docker/dockerfile; another one is refused, for what it asks of BuildKit
//     would pass by the check. Each definition is checked and rewritten before BuildKit
//     hears of it (check.go): nothing of the machine that builds, no source but the build's
//     own files, images, and files by address.
//   - An image that a Dockerfile names is asked of its registry for each build anew, with
//     the credentials of that build alone, and pinned by digest (registry.go). BuildKit keeps
//     what it has pulled, for whomever it was.
//   - What ADD names by address is fetched here (download.go), where each address that is
//     dialled is looked at, after redirects too. Git repositories are refused: BuildKit
//     follows their redirects and submodules by itself.
//   - Files come from the build's container and are made by BuildKit, which is root: what
//     a workspace has no use for does not pass (session.go).
//   - Secrets are handed out by the session, and kept by nobody. Token services of
//     registries are asked here (auth.go), for images that they have shown this build:
//     BuildKit gets a password only of a registry without one, and follows none elsewhere.
//
// # Tiers of trust
//
// BuildKit finds what it has done before by the operation and the content of its inputs.
// An image by digest, a COPY of files that it has received, and a file by address are the
// same whoever asked first, so all tiers share them. Only a RUN may leave something else
// each time: who runs it first decides what everybody with the same lines gets. So each
// RUN gets a variable FORGE_TRUST, a hash of Request.Tier, which makes its key, and the key
// of all that comes after it, another one in each tier; ids of cache mounts begin with the
// same hash. A pull request so reads nothing of main's either; a daemon a tier would cost the
// same, and a process more. Folders of the session are of one build: BuildKit keeps files
// that it was sent, and believes size and time of a file that comes again.
//
// # Pushing
//
// No BuildKit holds credentials to push with. What was built comes out of it (from the Docker
// engine saved, from a daemon as an OCI layout) and is sent by its digest, blobs that the
// registry has left out. Then each tag is set by one request, so that whatever ends a push, no
// tag names half an image.
//
// A daemon makes the provenance itself (mode=max), and SBOMs where the server names a
// scanner. The Docker engine's BuildKit makes neither: the statement of provenance is
// Forge's own, of the request, the commit and the images it was built on, and says less: not
// the steps. There is no SBOM.
package image
