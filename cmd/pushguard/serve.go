package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/config/awssecret"
	"github.com/pushguard/pushguard/cmd/pushguard/guard"
)

type serveCmd struct {
	Config    string        `help:"Config file. Without one, PUSHER_URL (or PUSHER_APP_ID, PUSHER_KEY, PUSHER_SECRET, PUSHER_CLUSTER; PUSHER_APP_KEY and PUSHER_APP_SECRET as in Laravel) and defaults are used." placeholder:"FILE" type:"path"`
	Sink      bool          `help:"Send nothing: answer in Pusher's place, and tell what it would have cost. Uses a store of its own, whatever the config says, and alerts nobody."`
	Record    string        `help:"Write every publish into this new file for pushguard replay, payloads hashed." placeholder:"FILE"`
	RecordMax string        `help:"Recording ends when the file is this large." default:"1GiB" placeholder:"SIZE"`
	RecordFor time.Duration `help:"Recording ends after this long." placeholder:"DURATION"`
	ReusePort bool          `help:"Open both ports beside another serve that was started with this flag too, to replace it without refusing a connection. Linux; needs a shared store."`
	cli.GuardFlags

	sinkDir string // what --sink keeps, for as long as it runs
}

func (serveCmd) Help() string {
	return `Examples:
  PUSHER_URL=http://KEY:SECRET@api-eu.pusher.com/apps/1234 pushguard serve
  pushguard serve --config pushguard.yaml --log-format json
  pushguard serve --config pushguard.yaml --sink         a load test that costs nothing
  pushguard serve --config pushguard.yaml --record day.jsonl --record-for 1h

Then give the Pusher SDK of your app server the host and port of the data port.
SIGHUP, or a change of the file or of a secret in it, reloads: all of it or nothing.
SIGTERM drains: not ready, serving on for drain_delay, then out with exit code 0.
Sockets that systemd opened (LISTEN_FDS) are used instead of listen and admin.listen.`
}

func (c *serveCmd) Run(p *cli.Process) error {
	loader := newLoader(p.Getenv)
	loaded, err := c.load(p.Ctx, loader.LoadOrLastGood, p.Getenv)
	if err != nil {
		return err
	}
	cfg := loaded.Config
	log, level, err := guard.NewLevelLogger(p.Stderr, string(cfg.Log.Format), string(cfg.Log.Level))
	if err != nil {
		return cli.Usage(err)
	}
	for _, w := range cfg.Warnings {
		log.Warn("config: " + w.Error())
	}
	for _, ref := range cfg.FromLastGood {
		log.Error("LAST GOOD: a secret source is out of reach; its last good value is used", "reference", ref, "cache", loaded.LastGood)
	}
	boundMemory(p.Getenv, os.DirFS("/"), log)
	given, err := guard.Inherited()
	if err != nil {
		return err
	}
	given.Reuse = c.ReusePort
	most, err := config.ParseBytes(c.RecordMax)
	if err != nil || most < 1<<16 {
		return cli.Usage(fmt.Errorf("--record-max %s: a size of at least 64KiB, like 500MiB", c.RecordMax))
	}
	given.Extras.Sink = c.Sink
	if c.Sink {
		log.Warn("SINK: nothing is sent to Pusher; usage is counted in a store of this process alone")
		defer os.RemoveAll(cfg.DataDir)
	}
	if c.Record != "" {
		if given.Extras.Record, err = guard.StartRecording(c.Record, most, c.RecordFor, log); err != nil {
			return err
		}
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // from here on it no longer ends the process
	defer signal.Stop(hup)

	g, err := guard.StartOn(p.Ctx, cfg, log, level, given)
	if err != nil {
		return err
	}
	if c.AddrFile != "" {
		if err := guard.WriteAddrFile(c.AddrFile, g.Addrs()); err != nil {
			_ = g.Stop(context.WithoutCancel(p.Ctx))
			return fmt.Errorf("--addr-file: %w", err)
		}
	}
	sayWhatIsServed(log, cfg, g.Addrs())
	g.Keep(loaded)
	stopFollowing := func() {}
	if c.Config != "" {
		again := func(ctx context.Context) (*config.Loaded, error) { return c.load(ctx, loader.Load, p.Getenv) }
		stopFollowing = g.Follow(hup, again, loaded)
	}
	defer stopFollowing()
	g.KeepAlive()
	guard.Notify(daemon.SdNotifyReady)

	<-p.Ctx.Done()
	guard.Notify(daemon.SdNotifyStopping)
	stopFollowing()
	if err := g.Drain(context.Background()); err != nil {
		return err
	}
	g.SaySunk()
	log.Info("stopped")
	return nil
}

// load reads the file, or the environment without one, and lets flags win.
// The Loaded is never nil.
func (c *serveCmd) load(ctx context.Context, from func(context.Context, string) (*config.Loaded, error), getenv func(string) string) (*config.Loaded, error) {
	loaded := &config.Loaded{}
	var err error
	if c.Config == "" {
		loaded.Config, err = config.FromEnv(getenv)
	} else {
		loaded, err = from(ctx, c.Config)
	}
	if err != nil {
		if loaded.Aside != nil {
			err = fmt.Errorf("%w\n(last good: %w)", err, loaded.Aside)
		}
		return loaded, err
	}
	c.Apply(loaded.Config)
	if c.Sink {
		if c.sinkDir == "" {
			if c.sinkDir, err = os.MkdirTemp("", "pushguard-sink-"); err != nil {
				return loaded, err
			}
		}
		guard.IsolateSink(loaded.Config, c.sinkDir)
	}
	if err := loaded.Config.CheckFlags(); err != nil {
		return loaded, cli.Usage(err)
	}
	return loaded, nil
}

// newLoader knows every source of secrets.
func newLoader(getenv func(string) string) *config.Loader {
	return &config.Loader{Getenv: getenv, Sources: awssecret.Sources()}
}

// sayWhatIsServed tells once, after the start, what a newcomer asks: which apps
// and plan, what is guessed, where the dashboard is, and what to do next.
func sayWhatIsServed(log *slog.Logger, cfg *config.Config, addrs map[string]string) {
	for i := range cfg.Accounts {
		a := &cfg.Accounts[i]
		var apps, blind []string
		for j := range a.Apps {
			apps = append(apps, a.Apps[j].ID+" to "+a.Apps[j].UpstreamURL())
			if what := guessed(&a.Apps[j]); what != "" {
				blind = append(blind, what)
			}
		}
		args := []any{"account", a.Name, "plan", a.Plan.Name, "messages_per_day", a.Plan.MessagesPerDay, "apps", strings.Join(apps, ", ")}
		if len(blind) > 0 {
			args = append(args, "guessed", strings.Join(blind, "; "))
		}
		log.Info("serving", args...)
	}
	scheme := "http"
	if cfg.TLS != nil {
		scheme = "https"
	}
	log.Info("next: give your Pusher SDK host and port of the data port; open the dashboard", "sdk", scheme+"://"+addrs["data"], "dashboard", "http://"+addrs["admin"]+"/")
}
