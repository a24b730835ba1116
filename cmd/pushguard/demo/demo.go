// Package demo is pushguard demo: a simulated Pusher, a guard, five healthy callers and one that runs away.
package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"text/tabwriter"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/cli"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/guard"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/pusher/sim"
)

type Command struct {
	Duration time.Duration `help:"How long the compressed day takes." default:"60s" placeholder:"DURATION"`
	cli.GuardFlags
}

func (Command) Help() string {
	return `Two simulated Pusher accounts with the same small plan get the same traffic: five healthy callers
and one that runs away. One account is called directly, the other through the guard, which has
watched the usual traffic before. Everything that is told was measured while it ran. Exits with 1
if a healthy caller was refused, the guarded plan used up, or the culprit not named and held.

Example:
  pushguard demo`
}

// The demo's day. The healthy callers alone use under half of the plan.
const (
	demoPlan        = 20_000
	demoSubscribers = 2
	demoAccount     = "demo"
	demoApp         = "1234"
	demoKey         = "demo-key"
	demoSecret      = "demo-secret"
	demoToken       = "demo"
)

// demoConfig is what a team would write on its first day.
const demoConfig = `
listen: %q
admin: { listen: %q, token: %q }
data_dir: %q
replica: %q
drain_delay: 0s
contain: auto
breaker: { burn_rate: off }   # its windows are of a real day, and this one takes a minute
accounts:
  - name: %q
    plan: { messages_per_day: %d }
    apps:
      - id: %q
        key: %q
        secret: %q
        upstream: %q
        subscribers: { default: %d }
        callers:
          - { name: orders,    key: k-orders,    secret: s-orders }
          - { name: chat,      key: k-chat,      secret: s-chat }
          - { name: presence,  key: k-presence,  secret: s-presence }
          - { name: billing,   key: k-billing,   secret: s-billing }
          - { name: alarms,    key: k-alarms,    secret: s-alarms }
          - { name: refresher, key: k-refresher, secret: s-refresher }
    rules:
      - { name: alarms, match: { event: "alarm.*" }, priority: critical }
      - { name: refresh, match: { event: "notification.*", channel: "private-user-*" }, priority: bulk, dedupe: 2s, rate: 5/s per channel }
`

func (c *Command) Run(p *cli.Process) error {
	if c.Duration < 10*time.Second || c.Duration > 10*time.Minute {
		return cli.Usage(fmt.Errorf("--duration %s: between 10s and 10m", c.Duration))
	}
	log := slog.New(slog.DiscardHandler)
	if c.LogLevel != "" || c.LogFormat != "" {
		var err error
		if log, err = guard.NewLogger(p.Stderr, c.LogFormat, c.LogLevel); err != nil {
			return cli.Usage(err)
		}
	}
	dir, err := os.MkdirTemp("", "pushguard-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	direct, err := startDemoSim()
	if err != nil {
		return err
	}
	defer direct.close()
	guarded, err := startDemoSim()
	if err != nil {
		return err
	}
	defer guarded.close()

	text := fmt.Sprintf(demoConfig, cmp.Or(c.Listen, "127.0.0.1:0"), cmp.Or(c.Admin, "127.0.0.1:0"), demoToken, dir,
		demoReplica, demoAccount, demoPlan, demoApp, demoKey, demoSecret, "http://"+guarded.addr, demoSubscribers)
	cfg, err := config.Parse("demo.yaml", []byte(text), p.Getenv)
	if err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintf(p.Stdout, "The guard first watches %.0f hours of the usual traffic, in virtual time: ", demoKnown.Hours())
	if err := liveBefore(p.Ctx, dir, began, c.Duration); err != nil {
		return err
	}
	fmt.Fprintf(p.Stdout, "done in %s.\n\n", time.Since(began).Round(100*time.Millisecond))
	g, err := guard.Start(p.Ctx, cfg, log)
	if err != nil {
		return err
	}
	defer g.Stop(context.WithoutCancel(p.Ctx))
	if c.AddrFile != "" {
		if err := guard.WriteAddrFile(c.AddrFile, g.Addrs()); err != nil {
			return fmt.Errorf("--addr-file: %w", err)
		}
	}

	day := &demoDay{
		out: p.Stdout, length: c.Duration, guard: g,
		sides: [2]*demoSide{
			{name: "direct", sim: direct.sim, host: direct.addr},
			{name: "guarded", sim: guarded.sim, host: g.Addrs()["data"], throughGuard: true},
		},
	}
	return day.run(p.Ctx)
}

type demoServer struct {
	sim  *sim.Server
	addr string
	srv  *http.Server
}

func startDemoSim() (*demoServer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	apps := []sim.App{{ID: demoApp, Key: demoKey, Secret: demoSecret}}
	s := &demoServer{sim: sim.New(sim.Config{Apps: apps, MessagesPerDay: demoPlan, Subscribers: demoSubscribers, Latency: 5 * time.Millisecond}), addr: ln.Addr().String()}
	s.srv = &http.Server{Handler: s.sim, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.srv.Serve(ln) }()
	return s, nil
}

func (s *demoServer) close() { _ = s.srv.Close() }

// demoDay tells the story while the traffic runs.
type demoDay struct {
	out    io.Writer
	length time.Duration
	guard  *guard.Guard
	sides  [2]*demoSide
	began  time.Time
	named  bool // the one that ran away, by the guard itself
	held   bool // it
}

func (d *demoDay) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%5.1fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demoDay) run(ctx context.Context) error {
	fmt.Fprintf(d.out, "Two Pusher accounts, each with a plan of %s messages a day. The day takes %s here.\n", cli.Grouped(demoPlan), d.length)
	fmt.Fprintf(d.out, "Both get the same traffic. One is called directly, the other through pushguard:\n")
	fmt.Fprintf(d.out, "  dashboard  http://%s/  (token for the levers: %s)\n", d.guard.Addrs()["admin"], demoToken)
	fmt.Fprintln(d.out)

	ctx, cancel := context.WithTimeout(ctx, d.length)
	defer cancel()
	d.began = time.Now()
	traffic := startDemoTraffic(ctx, d.began, d.length, d.sides[:])
	d.say("five healthy callers publish, as on every day")

	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	ranAway, lastTold := false, time.Duration(0)
	var told [2]bool
	held, named := map[string]bool{}, map[string]bool{}
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
			continue
		case <-tick.C:
		}
		at := time.Since(d.began)
		if !ranAway && at >= traffic.runawayFrom {
			ranAway = true
			d.say(`a deploy: "refresher" begins to retry its notification.refresh, doubling every %s`, traffic.doubling.Round(100*time.Millisecond))
		}
		for i, side := range d.sides {
			if st := side.sim.Stats(); !told[i] && st.Refused > 0 {
				told[i] = true
				d.say("%s: Pusher refuses with 403, the plan of %s is used up, for every caller", side.name, cli.Grouped(demoPlan))
			}
		}
		for _, in := range d.guard.Incidents() {
			c := in.Culprits
			if !named[in.ID] && len(c) > 0 {
				named[in.ID] = true
				d.named = d.named || c[0].Caller == "refresher"
				d.say("guarded: incident %s names %s × %s × %s: %.0f%% of the excess, ×%.0f its usual rate", in.ID, c[0].Caller, c[0].Event, c[0].Channel, 100*c[0].Share, in.Factor)
			}
			if in.Action == ops.ActionContained && !named[in.ID+"held"] {
				named[in.ID+"held"] = true
				d.held = d.held || len(c) > 0 && c[0].Caller == "refresher"
				for _, e := range in.Timeline {
					if e.Kind == "contain" {
						d.say("guarded: %s", e.Text)
					}
				}
			}
		}
		st := d.status()
		for _, c := range st.Callers {
			for _, o := range []string{"deduplicated", "contained", "throttled", "over_budget"} {
				if n := c.Outcomes[o]; n > 0 && !held[c.Name+o] {
					held[c.Name+o] = true
					d.say("guarded: the first publishes of %q are %s; nobody else is touched", c.Name, o)
				}
			}
		}
		if at-lastTold >= d.length/6 {
			lastTold = at
			direct, guarded := d.sides[0].sim.Stats(), d.sides[1].sim.Stats()
			d.say("plan used: direct %s, guarded %s  (refresher asks for %.0f publishes/s)", percentOf(direct.Messages), percentOf(guarded.Messages), traffic.runawayRate(at))
		}
	}
	traffic.wait()
	d.say("the day is over\n")
	return d.report(traffic)
}

func (d *demoDay) status() ops.AccountStatus { return d.guard.Status().Accounts[0] }

func percentOf(messages int64) string {
	return fmt.Sprintf("%.0f%%", 100*float64(messages)/demoPlan)
}

// report prints what was counted: by the callers, and by the two simulated
// Pushers.
func (d *demoDay) report(t *demoTraffic) error {
	tw := tabwriter.NewWriter(d.out, 2, 8, 3, ' ', 0)
	fmt.Fprintln(tw, "measured\tdirect\tguarded")
	row := func(name string, value func(*demoSide) string) {
		fmt.Fprintf(tw, "%s\t%s\t%s\n", name, value(d.sides[0]), value(d.sides[1]))
	}
	row("messages that Pusher billed, of "+cli.Grouped(demoPlan), func(s *demoSide) string {
		st := s.sim.Stats()
		return fmt.Sprintf("%s (%s)", cli.Grouped(st.Messages), percentOf(st.Messages))
	})
	row("healthy callers: publishes accepted", func(s *demoSide) string {
		return fmt.Sprintf("%s of %s (%.1f%%)", cli.Grouped(s.healthy.accepted.Load()), cli.Grouped(s.healthy.asked.Load()), s.healthy.share())
	})
	row("healthy callers: first refusal", func(s *demoSide) string {
		if at := s.healthy.firstRefusal.Load(); at > 0 {
			return time.Duration(at).Round(100*time.Millisecond).String() + " into the day"
		}
		return "none"
	})
	row("healthy callers: median time of a publish", func(s *demoSide) string { return s.healthy.median().Round(10 * time.Microsecond).String() })
	row("refresher: publishes asked for", func(s *demoSide) string { return cli.Grouped(s.runaway.asked.Load()) })
	row("refresher: reached Pusher", func(s *demoSide) string { return cli.Grouped(s.reached("notification.refresh")) })
	if err := tw.Flush(); err != nil {
		return err
	}
	st := d.status()
	fmt.Fprintf(d.out, "\nguard's own count: %s messages used, breaker %s", cli.Grouped(st.Used), st.Breaker.State)
	for _, c := range st.Callers {
		if c.Name == "refresher" {
			fmt.Fprintf(d.out, "; refresher: %s", cli.Outcomes(c.Outcomes))
		}
	}
	fmt.Fprintln(d.out)
	if d.sides[1].sim.Stats().Messages > demoPlan || d.sides[1].healthy.firstRefusal.Load() > 0 || !d.named || !d.held {
		return fmt.Errorf("the guard did not keep what this demo promises; please report it with the lines above")
	}
	return nil
}
