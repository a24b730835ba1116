package main

import (
	"context"
	"io"
	"os"
)

// process is what a command gets from its process, so that tests can be one.
type process struct {
	ctx            context.Context
	getenv         func(string) string
	stdout, stderr io.Writer
}

// usageError is a mistake on the command line that the parser cannot see.
type usageError struct{ error }

// silentError has been reported already.
type silentError struct{ error }

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
