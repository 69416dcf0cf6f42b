// Package rpc serves and dials gRPC the same way everywhere. Each call is
// admitted by who makes it, ends by a deadline, survives a panic, belongs to a
// trace, and fails with a kind of package fault on both sides, whether the
// rooms share a process (Pipe) or not (Dial).
//
// Who calls is proven to the server, never just claimed: the admin by a bearer
// token, a room by its token or its client certificate. Only over a Pipe, and
// from this host where Config.TrustLoopback says so, is a room's name enough.
package rpc
