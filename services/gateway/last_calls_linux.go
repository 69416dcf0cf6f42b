package gateway

import "golang.org/x/sys/unix"

// deafen has a socket that listens hear nobody new, as if the first packet of each were
// lost: they ask again a second later, when the socket is closed and they are refused.
// Without it, who connects between the last that is accepted and the end of the socket
// would be reset. It fails where the kernel has no filters, and then the moment stays.
func deafen(socket int) {
	const flags, syn = 13, 2 // RFC 9293, section 3.1: a byte of the header, and a bit of it
	filter := [...]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: flags},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: syn, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1<<32 - 1},
	}
	_ = unix.SetsockoptSockFprog(socket, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}
