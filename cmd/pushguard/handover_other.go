//go:build !linux

package main

import "errors"

func reusePort(uintptr) error { return errors.New("--reuse-port needs Linux") }

func sendElsewhere(uintptr) {}
