//go:build !linux

package guard

import "errors"

func reusePort(uintptr) error { return errors.New("--reuse-port needs Linux") }

func sendElsewhere(uintptr) {}
