// Package content keeps what builds leave: caches for those that come after them, and
// artifacts for people and for jobs that need them. What one tier of trust has
// written, a higher one never reads.
//
// Bytes lie as chunks in packs, which are blobs; a manifest, a blob as well, says of
// which chunks a content consists, and its digest stands in the database. Whoever
// reads checks every chunk against the manifest, so that what is changed in the
// bucket is found.
package content
