//go:build linux

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
)

func main() {
	// Children are told to end when the thread that started them does; so that must be one that stays.
	runtime.LockOSThread()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	commands := map[string]func([]string, io.Writer, io.Writer) error{
		"compare": compare, "distance": distance, "stub": stub, "pool": pool, "load": load,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprintln(stderr, "usage: http distance|compare|stub|pool|load [flags]; see --help of each, and bench/RESULTS.md")
		return 2
	}
	err := commands[args[0]](args[1:], stdout, stderr)
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &usage):
		if usage.error != nil {
			fmt.Fprintln(stderr, usage)
		}
		return 2
	}
	fmt.Fprintln(stderr, "bench:", err)
	return 1
}

// usageError is a wrong command line; it holds nil if what is wrong has been printed already.
type usageError struct{ error }

// parse reads flags and takes no further arguments.
func parse(fs *flag.FlagSet, args []string, stderr io.Writer) error {
	fs.SetOutput(stderr)
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{nil} // the flag set has said what is wrong
	}
	if fs.NArg() > 0 {
		return usageError{fmt.Errorf("%s: unexpected argument %q", fs.Name(), fs.Arg(0))}
	}
	return nil
}
