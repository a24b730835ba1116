package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // from here on a second signal ends the process at once
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// The exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is the command line. Each command is in a file of its own.
type cli struct {
	Serve      serveCmd      `cmd:"" help:"Run the guard."`
	Demo       demoCmd       `cmd:"" help:"Show the whole story in under 90 seconds, with no account and no Redis."`
	Check      checkCmd      `cmd:"" help:"Preflight: prove the config, and with --online the store and Pusher, before anything is replaced."`
	Status     statusCmd     `cmd:"" help:"What a running guard is doing: plan, breaker, callers."`
	Top        topCmd        `cmd:"" help:"Who publishes most, live."`
	Incidents  incidentsCmd  `cmd:"" help:"What the detector found: who ran away, when, and what was done."`
	Brake      brakeCmd      `cmd:"" help:"Stop publishes by hand, with a reason and an end, on every replica."`
	Plan       planCmd       `cmd:"" help:"Change an account's plan, live."`
	Usage      usageCmd      `cmd:"" help:"Set today's count to what Pusher's own dashboard shows."`
	Held       heldCmd       `cmd:"" help:"Send now what was answered and is held for later."`
	Sim        simCmd        `cmd:"" help:"Run the Pusher simulator alone."`
	Replay     replayCmd     `cmd:"" help:"Run a scenario or a recorded trace through the real decision code in virtual time, with and without the guard."`
	Load       loadCmd       `cmd:"" help:"Generate load, open loop, signed like an SDK."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Completion completionCmd `cmd:"" help:"Print completions for a shell: bash, zsh or fish."`
	Man        manCmd        `cmd:"" help:"Print the manual page."`
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) (code int) {
	var c cli
	ended := -1
	parser, err := kong.New(&c,
		kong.Name("pushguard"),
		kong.Description("A guard in front of Pusher Channels: verifies, attributes, limits and budgets every publish.\n\nStart with: pushguard demo"),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { ended = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(withDefault),
		kong.UsageOnError(),
	)
	if err != nil {
		fmt.Fprintln(stderr, "pushguard:", err)
		return exitFailed
	}
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case len(args) == 1 && args[0] == "--version": // as everybody tries it
		args = []string{"version"}
	}
	kctx, err := parser.Parse(args)
	if ended >= 0 {
		return ended // --help was answered
	}
	if err != nil {
		fmt.Fprintf(stderr, "pushguard: %v\nSee: %s --help\n", err, asked(err))
		return exitUsage
	}
	err = kctx.Run(&process{ctx: ctx, getenv: getenv, stdout: stdout, stderr: stderr}, parser.Model)
	var wrong usageError
	var silent silentError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &silent):
		return exitFailed
	case errors.As(err, &wrong):
		fmt.Fprintln(stderr, "pushguard:", err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "pushguard:", err)
	return exitFailed
}

// withDefault is what --help says of a value: where a placeholder stands in for the default, that too.
func withDefault(v *kong.Value) string {
	help := kong.DefaultHelpValueFormatter(v)
	if v.Flag != nil && v.Flag.PlaceHolder != "" && v.HasDefault && v.Default != "" {
		help += " Default: " + v.Default + "."
	}
	return help
}

// asked is the command that a mistake was made in, as far as it was understood.
func asked(err error) string {
	name := "pushguard"
	var parse *kong.ParseError
	if errors.As(err, &parse) {
		for _, p := range parse.Context.Path {
			if p.Command != nil {
				name += " " + p.Command.Name
			}
		}
	}
	return name
}

type versionCmd struct{}

func (versionCmd) Help() string { return "Example:\n  pushguard version" }

func (versionCmd) Run(p *process) error {
	_, err := fmt.Fprintln(p.stdout, "pushguard", buildVersion())
	return err
}
