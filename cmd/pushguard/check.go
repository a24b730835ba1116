package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	pusherhttp "github.com/pusher/pusher-http-go/v5"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/guard"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

type checkCmd struct {
	Config    string `help:"Config file. Without one, the environment is checked as serve would read it." placeholder:"FILE" type:"path"`
	Online    bool   `help:"Also prove what is around: store, Pusher with these credentials, clock, ports, limits. Costs one read call, which Pusher counts as one message, for each app."`
	Replacing bool   `help:"With --online: a serve that is to be replaced holds the ports, so they need not be free."`
	JSON      bool   `help:"Print what was found as JSON." name:"json"`
	Schema    bool   `help:"Print the config file's JSON Schema and do nothing else."`
}

func (checkCmd) Help() string {
	return `Every mistake in the config is told with file, line and column. With --online each line says
ok, or FAIL with what to do. Exit code 0 when all is well, 1 when not.

Examples:
  pushguard check --config pushguard.yaml
  pushguard check --config pushguard.yaml --online
  pushguard check --config pushguard.yaml --json
  pushguard check --schema > pushguard.schema.json`
}

func (c *checkCmd) Run(p *cli.Process) error {
	if c.Schema {
		_, err := p.Stdout.Write(config.Schema())
		return err
	}
	name := cmp.Or(c.Config, "the environment")
	loader := newLoader(p.Getenv)
	loaded, err := (&serveCmd{Config: c.Config}).load(p.Ctx, loader.Load, p.Getenv) // never the last good: what is out of reach must show
	out := &report{w: p.Stdout, json: c.JSON}
	if err != nil {
		var ps config.Problems
		if c.JSON {
			if !errors.As(err, &ps) {
				ps = config.Problems{{File: name, Message: err.Error()}}
			}
			out.Problems = ps
			out.failed = len(ps)
			if err := out.end(); err != nil {
				return err
			}
			return cli.Silent(err)
		}
		fmt.Fprintln(p.Stderr, err)
		return cli.Silent(err)
	}
	cfg := loaded.Config
	out.Warnings = cfg.Warnings
	for _, w := range cfg.Warnings {
		if !c.JSON {
			fmt.Fprintln(p.Stderr, "warning:", w.Error())
		}
	}
	out.line(fmt.Sprintf("config: %s is complete", name), nil)
	out.line(fmt.Sprintf("secrets: %s", resolved(loaded.References())), nil)
	for i := range cfg.Accounts {
		for j := range cfg.Accounts[i].Apps {
			app := &cfg.Accounts[i].Apps[j]
			switch what := guessed(app); {
			case what == "":
			case app.Learn == nil:
				out.warn("subscribers: Pusher bills each delivery, and nothing here says how many subscribe: " + what)
			default:
				out.line("subscribers: "+what, nil)
			}
		}
	}
	for _, proof := range guard.Prove(cfg) { // as serve does before it starts
		out.line(proof.Name+": "+proof.Text, proof.Err)
	}
	if !c.Online {
		if err := out.end(); err != nil {
			return err
		}
		if out.failed > 0 {
			return fmt.Errorf("%s failed", counted(out.failed, "check"))
		}
		return nil
	}
	text, err := reachStore(p.Ctx, cfg, c.Replacing)
	out.line("store: "+text, err)
	for i := range cfg.Accounts {
		for j := range cfg.Accounts[i].Apps {
			app := &cfg.Accounts[i].Apps[j]
			skew, known, err := reachPusher(app, time.Now)
			if err != nil {
				err = fmt.Errorf("app %s at %s: %w", app.ID, app.UpstreamURL(), err)
			}
			way := ""
			if via, _ := proxy.ForwardProxy(app.UpstreamURL()); via != nil {
				way = " by the proxy http://" + via.Host
				if err != nil {
					err = fmt.Errorf("%w (by the proxy http://%s that the environment names; NO_PROXY leaves it out)", err, via.Host)
				}
			}
			out.line(fmt.Sprintf("Pusher: app %s at %s%s takes these credentials (this check cost one message)", app.ID, app.UpstreamURL(), way), err)
			if known {
				out.line(fmt.Sprintf("clock: %s off Pusher's, which allows 600 s", skew), skewed(skew))
			}
		}
	}
	for _, port := range []struct{ name, addr string }{{"data", cfg.Listen}, {"admin", cfg.Admin.Listen}} {
		held := portFree(p.Ctx, port.addr)
		if held != nil && c.Replacing {
			out.line(fmt.Sprintf("ports: the %s port %s is held, as it is by the one to be replaced", port.name, port.addr), nil)
			continue
		}
		out.line(fmt.Sprintf("ports: the %s port %s is free", port.name, port.addr), held)
	}
	text, err = openFiles(cfg)
	if err != nil {
		// Only a flood of connections meets it; a default config must pass on a
		// default machine.
		out.warn("limits: " + err.Error())
	} else {
		out.line("limits: "+text, nil)
	}
	if err := out.end(); err != nil {
		return err
	}
	if out.failed > 0 {
		return fmt.Errorf("%s failed", counted(out.failed, "check"))
	}
	return nil
}

func resolved(references int) string {
	switch references {
	case 0:
		return "the config refers to none"
	case 1:
		return "the one reference is resolved"
	}
	return fmt.Sprintf("all %d references are resolved", references)
}

// counted is "1 app", "2 apps".
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// report is the list that check prints.
type report struct {
	w      io.Writer
	json   bool
	failed int

	Problems []config.Problem
	Warnings []config.Problem
	checks   []checkLine
}

// checkLine is one line of the report in JSON.
type checkLine struct {
	Name   string `json:"name"`
	Result string `json:"result"` // ok, warn, fail
	Text   string `json:"text"`
}

// checkProblem is a mistake or a warning in JSON.
type checkProblem struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// end prints the report where it is JSON; its lines have been printed else.
func (r *report) end() error {
	if !r.json {
		return nil
	}
	plain := func(all []config.Problem) []checkProblem {
		out := []checkProblem{}
		for _, p := range all {
			out = append(out, checkProblem{p.File, p.Line, p.Column, p.Path, p.Message, p.Hint})
		}
		return out
	}
	enc := json.NewEncoder(r.w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		OK       bool           `json:"ok"`
		Problems []checkProblem `json:"problems"`
		Warnings []checkProblem `json:"warnings"`
		Checks   []checkLine    `json:"checks"`
	}{r.failed == 0, plain(r.Problems), plain(r.Warnings), append([]checkLine{}, r.checks...)})
}

func (r *report) line(what string, err error) {
	if err != nil {
		r.failed++
		subject, _, _ := strings.Cut(what, ":")
		r.tell("fail", subject+": "+err.Error())
		return
	}
	r.tell("ok", what)
}

func (r *report) warn(what string) { r.tell("warn", what) }

func (r *report) tell(result, what string) {
	name, text, _ := strings.Cut(what, ": ")
	r.checks = append(r.checks, checkLine{name, result, text})
	if r.json {
		return
	}
	word := map[string]string{"ok": "ok    ", "warn": "warn  ", "fail": "FAIL  "}[result]
	fmt.Fprintf(r.w, "%s%s\n", word, what)
}

// guessed says what is not known yet of an app's fan-out at its start, and how it will be; empty where the config
// gives numbers of its own. Until then the plan may be spent faster than the count says.
func guessed(app *config.App) string {
	if len(app.Subscribers.Patterns) > 0 || app.Subscribers.Default != config.DefaultApp().Subscribers.Default {
		return ""
	}
	how := "until Pusher's webhooks come to /webhooks/" + app.ID + ", or subscribers or learn is set"
	if app.Learn != nil {
		how = "until counts are learned: by questions to Pusher where subscription counting is on in the app's settings, or by webhooks to /webhooks/" + app.ID
	}
	return "each channel of app " + app.ID + " counts as one subscriber " + how
}

// checkAccount is the name under which check proves that it may do with the
// store all that a replica does: join, take a lease, hand it back. What this
// leaves behind expires with the day's counts.
const checkAccount = "pushguard-check"

func reachStore(ctx context.Context, cfg *config.Config, replacing bool) (string, error) {
	if cfg.Store.Embedded() {
		if err := guard.WritableDir(cfg.DataDir); err != nil {
			return "", err
		}
		switch held := dataDirHeld(cfg.DataDir); {
		case held && !replacing:
			return "", fmt.Errorf("data_dir %s is in use by a running pushguard, and the embedded store serves one process: stop that one first, give this one a data_dir of its own, or share a Redis; say --replacing if it is the guard to be replaced", cfg.DataDir)
		case held:
			return "embedded, in " + cfg.DataDir + ", held by the one to be replaced: this one can start only when that one has ended", nil
		}
		return "embedded, in " + cfg.DataDir + ", which can be written to", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	st, err := store.Open(ctx, cfg.Store.Reveal(), store.Options{Log: quiet})
	if err != nil {
		return "", err
	}
	defer st.Close()
	ledger, err := quota.Open(ctx, time.Now(), st, "check", quota.Config{Account: checkAccount, Plan: quota.Plan{Name: "check", MessagesPerDay: 1000}}, quiet)
	if err != nil {
		return "", fmt.Errorf("%s answers, but a replica could not work with it: %w", cfg.Store, err)
	}
	if err := ledger.Close(ctx); err != nil {
		return "", fmt.Errorf("%s: a lease could not be handed back: %w", cfg.Store, err)
	}
	var took []time.Duration
	for range 5 {
		began := time.Now()
		if err := st.Ping(ctx); err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if took[2] > 250*time.Millisecond {
		return "", fmt.Errorf("%s takes %s to answer: leases would run dry at a heartbeat every 250 ms; put it nearer, or find out why it is slow", cfg.Store, took[2].Round(time.Millisecond))
	}
	return fmt.Sprintf("%s is new enough, runs our scripts, gives and takes back a lease, and answers in %s", cfg.Store, took[2].Round(10*time.Microsecond)), nil
}

// reachPusher makes the cheapest signed call that proves id, key and secret.
// skew is how far now is ahead of the answer's Date, which has whole seconds.
func reachPusher(app *config.App, now func() time.Time) (skew time.Duration, known bool, err error) {
	target := app.UpstreamURL()
	host := strings.TrimPrefix(strings.TrimPrefix(target, "https://"), "http://")
	via, err := proxy.ForwardProxy(target)
	if err != nil {
		return 0, false, err
	}
	next := &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyURL(via)}
	if app.CA != "" {
		roots, err := proxy.Roots(app.CA)
		if err != nil {
			return 0, false, err
		}
		next.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	dated := &dateReader{now: now, next: next}
	client := pusherhttp.Client{
		AppID: app.ID, Key: app.Key, Secret: app.Secret[0].Reveal(),
		Host: strings.TrimRight(host, "/"), Secure: strings.HasPrefix(target, "https://"),
		HTTPClient: &http.Client{Timeout: 10 * time.Second, Transport: dated},
	}
	prefix := "pushguard-check-"
	_, err = client.Channels(pusherhttp.ChannelsParams{FilterByPrefix: &prefix})
	return dated.skew, dated.known, withoutURL(err)
}

// dateReader compares an answer's Date with the clock.
type dateReader struct {
	now   func() time.Time
	next  http.RoundTripper
	skew  time.Duration
	known bool
}

func (d *dateReader) RoundTrip(r *http.Request) (*http.Response, error) {
	sent := d.now()
	resp, err := d.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// Half the way there and back, and half of the second that Date cuts off.
		here := sent.Add(d.now().Sub(sent) / 2)
		d.skew, d.known = here.Sub(date.Add(500*time.Millisecond)).Round(time.Second), true
	}
	return resp, nil
}

// maxSkew leaves room below Pusher's 600 s: a clock that is so far off drifts
// further. The day's end, when the plan starts anew, is also read off it.
const maxSkew = 30 * time.Second

func skewed(skew time.Duration) error {
	if skew.Abs() <= maxSkew {
		return nil
	}
	return fmt.Errorf("this machine's clock is %s off Pusher's: beyond 600 s every publish is refused, and the day ends at the wrong time; run an NTP client", skew)
}

// portFree opens and closes the port.
func portFree(ctx context.Context, addr string) error {
	ln, err := guard.Listen(ctx, addr, false)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%s cannot be opened (%w): end what holds it, choose another, or say --replacing if it is the guard to be replaced", addr, err)
		}
		return fmt.Errorf("%s cannot be opened (%w)%s", addr, err, guard.PortHint(err))
	}
	return ln.Close()
}

// openFiles compares the process's limit with what the config allows.
func openFiles(cfg *config.Config) (string, error) {
	limit, ok := fileLimit()
	if !ok {
		return "open files are not limited by a number here", nil
	}
	apps, calls := 0, 0
	for _, a := range cfg.Accounts {
		for _, app := range a.Apps {
			apps, calls = apps+1, calls+app.MaxCalls
		}
	}
	need := uint64(cfg.MaxConnections + calls + 64)
	if limit < need {
		return "", fmt.Errorf("%d open files are allowed, but max_connections and the connections to %s may need %d: raise LimitNOFILE (ulimit -n), or lower max_connections to %d, or max_calls", limit, counted(apps, "app"), need, max(int64(limit)-int64(need)+int64(cfg.MaxConnections), 1))
	}
	return fmt.Sprintf("%d open files are allowed, at most %d needed", limit, need), nil
}

// withoutURL strips the signed URL that Go's HTTP errors carry.
func withoutURL(err error) error {
	var withURL interface {
		error
		Unwrap() error
		Timeout() bool
	}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &withURL) && strings.Contains(err.Error(), "auth_signature"):
		if withURL.Timeout() {
			return errors.New("no answer within 10 s; is the host right, and does a firewall allow it?")
		}
		inner := withURL.Unwrap()
		if inner == nil || strings.Contains(inner.Error(), "auth_signature") || errors.Is(inner, io.EOF) {
			return errors.New("the connection failed; is the host right?")
		}
		return inner
	}
	return err
}
