package main

import (
	"context"
	"fmt"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
)

// guardFlags are shared by serve and demo; what is given here wins over the
// file.
type guardFlags struct {
	Listen   string `help:"Address of the data port, host:port; port 0 takes a free one." placeholder:"ADDR"`
	Admin    string `help:"Address of the admin port, host:port; port 0 takes a free one." placeholder:"ADDR"`
	AddrFile string `help:"Write the chosen addresses to this file as JSON, once both ports are open." placeholder:"FILE"`
	logFlags
}

type serveCmd struct {
	Config string `help:"Config file. Without one, PUSHER_URL (or PUSHER_APP_ID, PUSHER_KEY, PUSHER_SECRET, PUSHER_CLUSTER) and defaults are used." placeholder:"FILE" type:"path"`
	guardFlags
}

func (serveCmd) Help() string {
	return `Examples:
  PUSHER_URL=http://KEY:SECRET@api-eu.pusher.com/apps/1234 pushguard serve
  pushguard serve --config pushguard.yaml --log-format json

Then give the Pusher SDK of your app server the host and port of the data port.
SIGTERM drains: not ready, serving on for drain_delay, then out with exit code 0.`
}

func (c *serveCmd) Run(p *process) error {
	cfg, err := loadConfig(c.Config, p.getenv)
	if err != nil {
		return err
	}
	c.apply(cfg)
	if err := cfg.CheckFlags(); err != nil {
		return usageError{err}
	}
	log, err := newLogger(p.stderr, string(cfg.Log.Format), string(cfg.Log.Level))
	if err != nil {
		return usageError{err}
	}
	for _, w := range cfg.Warnings {
		log.Warn("config: " + w.Error())
	}
	g, err := startGuard(p.ctx, cfg, log)
	if err != nil {
		return err
	}
	if c.AddrFile != "" {
		if err := writeAddrFile(c.AddrFile, g.addrs()); err != nil {
			_ = g.stop(context.WithoutCancel(p.ctx))
			return fmt.Errorf("--addr-file: %w", err)
		}
	}
	<-p.ctx.Done()
	if err := g.drain(context.Background()); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func (g *guard) addrs() map[string]string {
	return map[string]string{"data": g.data.Addr().String(), "admin": g.admin.Addr().String()}
}

// apply lets flags win over the file.
func (f *guardFlags) apply(cfg *config.Config) {
	if f.Listen != "" {
		cfg.Listen = f.Listen
	}
	if f.Admin != "" {
		cfg.Admin.Listen = f.Admin
	}
	if f.LogFormat != "" {
		cfg.Log.Format = config.LogFormat(f.LogFormat)
	}
	if f.LogLevel != "" {
		cfg.Log.Level = config.LogLevel(f.LogLevel)
	}
}

func loadConfig(path string, getenv func(string) string) (*config.Config, error) {
	if path == "" {
		return config.FromEnv(getenv)
	}
	return config.Load(path, getenv)
}
