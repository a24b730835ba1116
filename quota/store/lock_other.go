//go:build !unix

package store

import (
	"errors"
	"os"
)

func lockFile(string) (*os.File, error) {
	return nil, errors.New("the embedded store keeps a journal on Unix only: use a Redis, or memory alone")
}
