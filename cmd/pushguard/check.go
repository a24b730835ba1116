package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	pusherhttp "github.com/pusher/pusher-http-go/v5"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/quota/store"
)

type checkCmd struct {
	Config string `help:"Config file. Without one, the environment is checked as serve would read it." placeholder:"FILE" type:"path"`
	Online bool   `help:"Also prove that the store and Pusher can be reached with these credentials. Costs one read call, which Pusher counts as one message, for each app."`
	Schema bool   `help:"Print the config file's JSON Schema and do nothing else."`
}

func (checkCmd) Help() string {
	return `Every mistake in the config is told with file, line and column. Exit code 0 when all is well, 1 when not.

Examples:
  pushguard check --config pushguard.yaml
  pushguard check --config pushguard.yaml --online
  pushguard check --schema > pushguard.schema.json`
}

func (c *checkCmd) Run(p *process) error {
	if c.Schema {
		_, err := p.stdout.Write(config.Schema())
		return err
	}
	name := firstOf(c.Config, "the environment")
	cfg, err := loadConfig(c.Config, p.getenv)
	if err != nil {
		fmt.Fprintln(p.stderr, err)
		return silentError{err}
	}
	for _, w := range cfg.Warnings {
		fmt.Fprintln(p.stderr, "warning:", w.Error())
	}
	fmt.Fprintf(p.stdout, "ok    config: %s is complete and every secret in it is resolved\n", name)
	if !c.Online {
		return nil
	}
	failed := 0
	line := func(what string, err error) {
		if err != nil {
			failed++
			fmt.Fprintf(p.stdout, "FAIL  %s: %v\n", what, err)
			return
		}
		fmt.Fprintf(p.stdout, "ok    %s\n", what)
	}
	took, err := reachStore(p.ctx, cfg)
	if err == nil {
		line(fmt.Sprintf("store: %s answers in %s", cfg.Store, took.Round(10*time.Microsecond)), nil)
	} else {
		line("store: "+cfg.Store.String(), err)
	}
	for i := range cfg.Accounts {
		for j := range cfg.Accounts[i].Apps {
			app := &cfg.Accounts[i].Apps[j]
			line(fmt.Sprintf("Pusher: app %s at %s takes these credentials (this check cost one message)", app.ID, app.UpstreamURL()), reachPusher(app))
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of the online checks failed", failed)
	}
	return nil
}

func reachStore(ctx context.Context, cfg *config.Config) (time.Duration, error) {
	if cfg.Store.Embedded() {
		return 0, writableDir(cfg.DataDir)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	st, err := store.Open(ctx, cfg.Store.Reveal(), store.Options{})
	if err != nil {
		return 0, err
	}
	defer st.Close()
	began := time.Now()
	err = st.Ping(ctx)
	return time.Since(began), err
}

// reachPusher makes the cheapest signed call that proves id, key and secret.
func reachPusher(app *config.App) error {
	target := app.UpstreamURL()
	host := strings.TrimPrefix(strings.TrimPrefix(target, "https://"), "http://")
	client := pusherhttp.Client{
		AppID: app.ID, Key: app.Key, Secret: app.Secret[0].Reveal(),
		Host: strings.TrimRight(host, "/"), Secure: strings.HasPrefix(target, "https://"),
		HTTPClient: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	prefix := "pushguard-check-"
	_, err := client.Channels(pusherhttp.ChannelsParams{FilterByPrefix: &prefix})
	return withoutURL(err)
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

// writableDir proves that the embedded store can live in dir, without opening
// it: a guard that is running there holds its lock.
func writableDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data_dir: %w", err)
	}
	f, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return fmt.Errorf("data_dir cannot be written to: %w", err)
	}
	_ = f.Close()
	return os.Remove(f.Name())
}
