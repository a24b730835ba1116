// Package cli has the commands that ask a running guard over its admin API, and what every command shares: its
// process, flags and kinds of error.
package cli

import (
	"context"
	"io"
	"os"
)

// Process is what a command gets from its process, so that tests can be one.
type Process struct {
	Ctx            context.Context
	Getenv         func(string) string
	Stdout, Stderr io.Writer
}

// UsageError is a mistake on the command line that the parser cannot see.
type UsageError struct{ error }

// Usage makes a UsageError of err.
func Usage(err error) error { return UsageError{err} }

// SilentError has been reported already.
type SilentError struct{ error }

// Silent makes a SilentError of err.
func Silent(err error) error { return SilentError{err} }

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
