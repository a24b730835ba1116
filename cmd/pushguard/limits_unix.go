//go:build unix

package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// fileLimit is how many files this process may have open. The Go runtime has
// raised the soft limit to the hard one by now.
func fileLimit() (uint64, bool) {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 0, false
	}
	return uint64(l.Cur), true
}

// dataDirHeld reports whether a running process has the embedded store in dir.
// What cannot be told is not held: the start will say.
func dataDirHeld(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, "store.lock"), os.O_RDWR, 0)
	if err != nil {
		return false // never used yet
	}
	defer f.Close() // which gives the lock back
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
