package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/demo"
	"github.com/pushguard/pushguard/cmd/pushguard/loadgen"
	"github.com/pushguard/pushguard/cmd/pushguard/version"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
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
	Audit      cli.AuditCmd      `cmd:"" help:"Who moved which lever, when and why."`
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
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(span)),
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
		fmt.Fprintf(stderr, "pushguard: %s\nSee: %s --help\n", said(err, args, parser), asked(err))
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

// span reads a duration as people write it: 90s, 2h, 2d.
func span(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := words.ParseSpan(text)
	if err != nil {
		return fmt.Errorf("%q is no duration: %w", text, err)
	}
	target.SetInt(int64(d))
	return nil
}

// said is a mistake in words; of a command that does not exist it names the
// nearest one that does, and none where none is near.
func said(err error, args []string, k *kong.Kong) string {
	text := err.Error()
	word, isWord := strings.CutPrefix(text, "unexpected argument ")
	if !isWord {
		return strings.ReplaceAll(text, "<duration>", "a duration")
	}
	word, _, _ = strings.Cut(word, ",")
	node := k.Model.Node
	for _, a := range args {
		for _, c := range node.Children {
			if c.Name == a {
				node = c
			}
		}
	}
	var known []string
	for _, c := range node.Children {
		if !c.Hidden {
			known = append(known, c.Name)
		}
	}
	where := "pushguard"
	if node != k.Model.Node {
		where = "pushguard " + node.Path()
	}
	if len(known) == 0 {
		return fmt.Sprintf("%s takes no %q", where, word)
	}
	if near, ok := config.Nearest(word, known); ok {
		return fmt.Sprintf("there is no command %q; did you mean %q?", word, near)
	}
	return fmt.Sprintf("there is no command %q; %s has %s", word, where, strings.Join(known, ", "))
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
