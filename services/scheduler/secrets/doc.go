// Package secrets keeps secrets encrypted and hands a build those that are meant
// for it, or none. It serves SecretService.
package secrets
