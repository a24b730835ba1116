//go:build unix

package main

import "syscall"

// fileLimit is how many files this process may have open. The Go runtime has
// raised the soft limit to the hard one by now.
func fileLimit() (uint64, bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return uint64(l.Cur), true
}
