package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/guard"
	"github.com/pushguard/pushguard/cmd/pushguard/replay"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

type replayCmd struct {
	File    string   `arg:"" help:"A scenario in YAML, or a trace in JSON lines (with --config)."`
	App     string   `help:"Whose publishes of a trace are replayed; without it, the first one's." placeholder:"ID"`
	Config  string   `help:"The config to replay a trace with." placeholder:"FILE"`
	Compare []string `help:"A further config (or scenario) whose rules, breaker and containment the same traffic is run through. May be given several times." placeholder:"FILE"`
	Seed    uint64   `help:"Draw the traffic by another seed than the scenario's." placeholder:"N"`
	JSON    bool     `help:"Print the result as JSON."`
	Chart   string   `help:"Draw the result into this file, .svg or .html." placeholder:"FILE"`
}

func (replayCmd) Help() string {
	return `The traffic is run through the real limiter, quota and detector in virtual time, beside
Pusher alone with its plan. docs/replay.md has the words of a scenario.

Examples:
  pushguard replay bench/replay/welkin.yaml --chart welkin.svg
  pushguard replay trace.jsonl --config pushguard.yaml --compare stricter.yaml`
}

func (c *replayCmd) Run(p *cli.Process) error {
	switch ext := filepath.Ext(c.Chart); {
	case c.Chart != "" && ext != ".svg" && ext != ".html":
		return cli.Usage(fmt.Errorf("--chart %s must end in .svg or .html", c.Chart))
	}
	s, err := c.load(p.Getenv)
	if err != nil {
		return err
	}
	own, err := guard.ForReplay(s.Config, s.Account, s.App)
	if err != nil {
		return err
	}
	sides := []replay.Side{{Name: "without the guard"}, {Name: "with the guard", Guard: own}}
	for _, file := range c.Compare {
		g, err := comparedGuard(file, s, p.Getenv)
		if err != nil {
			return err
		}
		sides = append(sides, replay.Side{Name: "with " + filepath.Base(file), Guard: g})
	}
	if cli.IsTerminal(p.Stderr) {
		s.Progress = tellProgress(p.Stderr)
	}
	r, err := replay.Run(p.Ctx, s, c.Seed, sides)
	if s.Progress != nil {
		fmt.Fprint(p.Stderr, "\r\x1b[K")
	}
	if err != nil {
		return err
	}
	if c.Chart != "" {
		if err := writeChart(c.Chart, r); err != nil {
			return err
		}
		fmt.Fprintln(p.Stderr, "chart:", c.Chart)
	}
	if c.JSON {
		enc := json.NewEncoder(p.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return r.Text(p.Stdout)
}

// tellProgress keeps one line of a terminal true, from the second second on.
func tellProgress(w io.Writer) func(at, until time.Time) {
	began := time.Now()
	first, last := time.Time{}, began.Add(time.Second)
	return func(at, until time.Time) {
		if first.IsZero() {
			first = at
		}
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		done := at.Sub(first).Seconds() / max(until.Sub(first).Seconds(), 1)
		left := time.Duration(float64(time.Since(began)) * (1 - done) / max(done, 0.001)).Round(time.Second)
		fmt.Fprintf(w, "\r%3.0f %%  %s UTC, about %s left\x1b[K", 100*done, at.UTC().Format("2006-01-02 15:04"), words.Span(left))
	}
}

// load reads the scenario, or makes one of a trace and a config.
func (c *replayCmd) load(getenv func(string) string) (*replay.Scenario, error) {
	trace, err := isTrace(c.File)
	switch {
	case err != nil:
		return nil, err
	case !trace && c.Config != "":
		return nil, cli.Usage(errors.New("--config is for traces; a scenario is a config file itself"))
	case !trace:
		return replay.Load(c.File, getenv)
	case c.Config == "":
		return nil, cli.Usage(fmt.Errorf("%s is a trace: say with --config by which rules it is replayed", c.File))
	}
	return replay.OfTrace(c.Config, c.File, c.App, getenv)
}

// isTrace looks at the first character that says anything.
func isTrace(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	r := bufio.NewReader(f)
	for {
		b, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, err
		case !strings.ContainsRune(" \t\r\n", rune(b)):
			return b == '{', nil
		}
	}
}

// comparedGuard takes the guard of another file for the scenario's account.
func comparedGuard(file string, s *replay.Scenario, getenv func(string) string) (*replay.Guard, error) {
	cfg, err := replay.LoadConfig(file, getenv)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Accounts {
		a := &cfg.Accounts[i]
		for j := range a.Apps {
			if a.Apps[j].ID == s.App.ID {
				return guard.ForReplay(cfg, a, &a.Apps[j])
			}
		}
	}
	return nil, fmt.Errorf("%s has no app %s", file, s.App.ID)
}

func writeChart(path string, r *replay.Result) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	draw := r.SVG
	if filepath.Ext(path) == ".html" {
		draw = r.HTML
	}
	return errors.Join(draw(f), f.Close())
}
