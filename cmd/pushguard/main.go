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
	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/demo"
	"github.com/pushguard/pushguard/cmd/pushguard/loadgen"
	"github.com/pushguard/pushguard/cmd/pushguard/version"
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

// commands is the command line.
type commands struct {
	Serve      serveCmd          `cmd:"" help:"Run the guard."`
	Demo       demo.Command      `cmd:"" help:"Show the whole story in under 90 seconds, with no account and no Redis."`
	Check      checkCmd          `cmd:"" help:"Preflight: prove the config, and with --online the store and Pusher, before anything is replaced."`
	Status     cli.StatusCmd     `cmd:"" help:"What a running guard is doing: plan, breaker, callers."`
	Top        cli.TopCmd        `cmd:"" help:"Who publishes most, live."`
	Incidents  cli.IncidentsCmd  `cmd:"" help:"What the detector found: who ran away, when, and what was done."`
	Brake      cli.BrakeCmd      `cmd:"" help:"Stop publishes by hand, with a reason and an end, on every replica."`
	Plan       cli.PlanCmd       `cmd:"" help:"Change an account's plan, live."`
	Usage      cli.UsageCmd      `cmd:"" help:"Set today's count to what Pusher's own dashboard shows."`
	Held       cli.HeldCmd       `cmd:"" help:"Send now what was answered and is held for later."`
	Sim        simCmd            `cmd:"" help:"Run the Pusher simulator alone."`
	Replay     replayCmd         `cmd:"" help:"Run a scenario or a recorded trace through the real decision code in virtual time, with and without the guard."`
	Load       loadgen.Command   `cmd:"" help:"Generate load, open loop, signed like an SDK."`
	Version    versionCmd        `cmd:"" help:"Print the version."`
	Completion cli.CompletionCmd `cmd:"" help:"Print completions for a shell: bash, zsh or fish."`
	Man        cli.ManCmd        `cmd:"" help:"Print the manual page."`
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) (code int) {
	var c commands
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
	err = kctx.Run(&cli.Process{Ctx: ctx, Getenv: getenv, Stdout: stdout, Stderr: stderr}, parser.Model)
	var wrong cli.UsageError
	var silent cli.SilentError
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

func (versionCmd) Run(p *cli.Process) error {
	_, err := fmt.Fprintln(p.Stdout, "pushguard", version.Build())
	return err
}
