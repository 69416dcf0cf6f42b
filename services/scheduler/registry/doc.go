// Package registry says what a build may show to registries of container images: what
// its repository has for them, as secrets are handed out, or a command of the server prints. It
// keeps which images were pulled so, for no build gets an image that is there by the
// credentials of another.
package registry
