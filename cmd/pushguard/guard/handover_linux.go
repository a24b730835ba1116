package guard

import "golang.org/x/sys/unix"

func reusePort(fd uintptr) error {
	return unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

// sendElsewhere makes the kernel give new connections of a shared port to the
// process that came second. The one that came first has index 0 in the group,
// so the program names index 1; without a second socket the kernel ignores it.
// See SO_ATTACH_REUSEPORT_CBPF in socket(7).
func sendElsewhere(fd uintptr) {
	prog := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	_ = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &prog[0]})
}
