package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/pushguard/pushguard/cmd/pushguard/alert"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
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

// PossibleDir says whether the embedded store could live in dir, and makes
// nothing: whoever checks a config may be another user than the one who serves.
func PossibleDir(dir string) error {
	at, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		info, err := os.Stat(at)
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("data_dir %s cannot be made: %s is a file; set data_dir to a directory", dir, at)
		case filepath.Dir(at) == at:
			return fmt.Errorf("data_dir %s cannot be made (%w)", dir, err)
		case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrNotExist):
			at = filepath.Dir(at)
		default:
			return fmt.Errorf("data_dir %s cannot be looked at (%w): set data_dir to a directory that this user may use", dir, err)
		}
	}
}

// Proof is one thing that a start needs beside the config's own words.
type Proof struct {
	Name, Text string
	Err        error
}

// Prove looks at what a config names on this machine: certificates, the
// directory, where alerts go. serve does not start, and check does not pass, if
// one of them fails.
func Prove(cfg *config.Config) []Proof {
	var all []Proof
	if cfg.TLS != nil {
		_, err := ReadCertificates(cfg.TLS)
		all = append(all, Proof{"tls", "certificate and key belong together", err})
	}
	if cfg.Store.Embedded() {
		all = append(all, Proof{"data_dir", cfg.DataDir + " can hold the embedded store", PossibleDir(cfg.DataDir)})
	}
	if len(cfg.Alerts) > 0 {
		_, err := alert.New(alert.Config{Targets: alertTargets(cfg)})
		all = append(all, Proof{"alerts", "every target can be told", err})
	}
	return all
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
