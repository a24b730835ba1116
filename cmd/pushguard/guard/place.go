package guard

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// PortHint says what to do about a port that cannot be opened.
func PortHint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "; another process holds it"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; this machine has no such address: leave the host out for all of its addresses"
	case errors.Is(err, syscall.EACCES):
		return "; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or root"
	}
	return ""
}

// WritableDir proves that the embedded store can live in dir, without opening
// it: a guard that is running there holds its lock.
func WritableDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data_dir %s cannot be made (%w): set data_dir to a directory that this user may write to", dir, err)
	}
	f, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return fmt.Errorf("data_dir %s cannot be written to (%w): give it to this user, or set data_dir to another", dir, err)
	}
	_ = f.Close()
	return os.Remove(f.Name())
}
