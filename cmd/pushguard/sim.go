package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/guard"
	"github.com/pushguard/pushguard/pusher/sim"
)

type simCmd struct {
	Listen         string        `help:"Address to listen on; port 0 takes a free one." default:"127.0.0.1:6001" placeholder:"ADDR"`
	App            []string      `help:"An app as ID:KEY:SECRET. May be given several times; all share one plan." required:"" placeholder:"ID:KEY:SECRET"`
	MessagesPerDay int64         `help:"The plan: messages a UTC day, as Pusher counts them." default:"200000" placeholder:"N"`
	Subscribers    int64         `help:"Subscribers that each channel has." default:"1" placeholder:"N"`
	SubscribersOf  []string      `help:"Subscribers of channels that match a pattern, as PATTERN=N. May be given several times; the first that matches counts." placeholder:"PATTERN=N" sep:"none"`
	NoCounts       bool          `help:"Answer without subscriber counts, as where subscription counting is off in the app's settings."`
	Latency        time.Duration `help:"Time that each answer takes." placeholder:"20ms"`
	FailEvery      int           `help:"Answer every N-th request with 500." placeholder:"N"`
	AddrFile       string        `help:"Write the chosen address to this file as JSON, {\"data\":\"host:port\"}." placeholder:"FILE"`
	cli.LogFlags
}

func (simCmd) Help() string {
	return `A Channels server as far as a publisher can see: it checks signatures, limits and shapes,
bills as Pusher does, and refuses with 403 and Pusher's words when the plan is spent.
GET /sim/v1/stats counts, GET /sim/v1/events?limit=N shows what arrived.

Example:
  pushguard sim --listen 127.0.0.1:6001 --app 1234:key:secret --messages-per-day 5000 --subscribers 2`
}

func (c *simCmd) Run(p *cli.Process) error {
	cfg := sim.Config{MessagesPerDay: c.MessagesPerDay, Subscribers: c.Subscribers, NoCounts: c.NoCounts, Latency: c.Latency, FailEvery: c.FailEvery}
	for _, s := range c.App {
		parts := strings.SplitN(s, ":", 3)
		if len(parts) != 3 || parts[0] == "" || parts[1] == "" || parts[2] == "" {
			return cli.Usage(errors.New("--app must be ID:KEY:SECRET"))
		}
		cfg.Apps = append(cfg.Apps, sim.App{ID: parts[0], Key: parts[1], Secret: parts[2]})
	}
	for _, s := range c.SubscribersOf {
		i := strings.LastIndexByte(s, '=')
		n, err := strconv.ParseInt(s[i+1:], 10, 64)
		if i <= 0 || err != nil || n < 0 {
			return cli.Usage(fmt.Errorf("--subscribers-of %q must be PATTERN=N", s))
		}
		cfg.SubscribersOf = append(cfg.SubscribersOf, sim.Pattern{Pattern: s[:i], N: n})
	}
	log, err := guard.NewLogger(p.Stderr, c.LogFormat, c.LogLevel)
	if err != nil {
		return cli.Usage(err)
	}
	ln, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: sim.New(cfg), ReadHeaderTimeout: 10 * time.Second}
	if c.AddrFile != "" {
		if err := guard.WriteAddrFile(c.AddrFile, map[string]string{"data": ln.Addr().String()}); err != nil {
			_ = ln.Close()
			return fmt.Errorf("--addr-file: %w", err)
		}
	}
	log.Info("listening", "data", ln.Addr().String())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-p.Ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}
