// Package blobs keeps what is written once and read often, such as finished logs
// and the sources of commits: as files of a directory, or as objects of an S3
// bucket.
//
// A blob is there whole or not at all, whatever happens while it is written, and
// once Put has returned it survives a loss of power. Its key is a path of
// lower-case letters, digits, dots, dashes and slashes.
package blobs
