package guard

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/alert"
	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/ops"
	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
	"github.com/pushguard/pushguard/pusher/proxy"
)

// saveEvery is how often what a watch knows is kept; a crash forgets that much
// of it at the most.
const saveEvery = time.Minute

// blobName is where an account's incidents and baseline are kept in the store.
// Replicas tell each other what they count, but each has a blob of its own: the
// one that restarts needs nobody.
func (g *Guard) blobName() string { return WatchBlob(g.replica) }

func WatchBlob(replica string) string { return "watch." + replica }

func containMode(c config.Contain) watch.Mode {
	switch c {
	case config.ContainSuggest:
		return watch.Suggest
	case config.ContainOff:
		return watch.Off
	case config.ContainStrict:
		return watch.Strict
	}
	return watch.Auto
}

// newWatch begins to watch an account, from what was known before a restart.
func (g *Guard) newWatch(ctx context.Context, cfg *config.Config, c *config.Account, a *account) *watch.Watch {
	ids := make([]string, len(c.Apps))
	for i := range c.Apps {
		ids[i] = c.Apps[i].ID
	}
	w := watch.New(watch.Config{
		Account: c.Name,
		Apps:    ids,
		Mode:    containMode(cfg.Contain),
		Used:    a.Ledger.Used,
		Pace:    a.Breaker.Pace,
		Level:   func(now time.Time) limiter.Level { return a.Breaker.State(now).State },
		Bears:   func(plan int64) watch.Bears { return g.bears(c.Name, plan) },
		Full:    g.full(c.Name),
	})
	a.watch = w
	g.readWatch(ctx, a, c.Name)
	return w
}

// readWatch reads what was saved of an account's usual rates. Where the store does not answer it is tried again when it
// does, and nothing is saved before, or an empty memory would take the place of a full one.
func (g *Guard) readWatch(ctx context.Context, a *account, name string) {
	blob, err := g.store.GetBlob(ctx, name, g.blobName())
	if a.unread = err != nil; a.unread {
		g.log.Warn("what was saved of the account's usual rates cannot be read yet; tried again when the store answers", "account", name, "err", err)
		return
	}
	if blob != nil {
		err = a.watch.Load(blob)
	}
	if err != nil {
		g.log.Warn("what was known of the account's usual rates is lost; they are learned anew", "account", name, "err", err)
	}
}

// current is the account in force of that name; nil before it is.
func (g *Guard) current(name string) *account {
	if f := g.fleet.Load(); f != nil {
		for _, a := range f.accounts {
			if a.Name == name {
				return a
			}
		}
	}
	return nil
}

// bears is how much of its plan the account may use before anybody is refused.
func (g *Guard) bears(name string, plan int64) watch.Bears {
	a := g.current(name)
	if a == nil {
		return watch.Bears{Mark: plan, Floor: plan}
	}
	return watch.BearsOf(plan, a.Levels.ShedBulkAt, a.Floors)
}

// full gives what reports whether publishes of the account got no place since it was
// asked last. An upstream that answers nothing is no matter of places.
func (g *Guard) full(name string) func(time.Time) bool {
	var last int64
	return func(time.Time) bool {
		a := g.current(name)
		if a == nil {
			return false
		}
		var n int64
		for _, app := range a.apps {
			for _, by := range app.Upstream.Overload().ShedBy {
				for cause, shed := range by {
					if proxy.ShedCause(cause) != proxy.ShedSilent {
						n += shed
					}
				}
			}
		}
		more := n > last && last > 0
		last = max(n, 1)
		return more
	}
}

// runWatch ticks once a second until ctx ends, and says what happens.
func (g *Guard) runWatch(ctx context.Context, a *account) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	saved := time.Now()
	if g.store.Kind() != "embedded" {
		var done sync.WaitGroup
		defer done.Wait()
		done.Go(func() { g.shareWatch(ctx, a) })
	}
	for {
		select {
		case <-ctx.Done():
			g.saveWatch(context.WithoutCancel(ctx), a)
			return
		case now := <-t.C:
			a.tellMoves()
			if a.unread && a.Ledger.Snapshot(now).StoreUp {
				g.readWatch(ctx, a, a.Name)
			}
			for _, c := range a.watch.Tick(now) {
				g.logChange(a.Name, c)
				a.tellStand(now, c)
			}
			for _, c := range a.watch.Tell(now, g.replica) {
				g.tell(alert.OfIncident(c, g.fleet.Load().cfg.Admin.URL))
			}
			if now.Sub(saved) >= saveEvery {
				saved = now
				g.saveWatch(ctx, a)
			}
		}
	}
}

// shareEvery is how often replicas tell each other what they count.
const shareEvery = time.Second

// shareWatch exchanges with the other replicas what is counted and ordered,
// until ctx ends. While the store is lost each replica watches what it sees.
func (g *Guard) shareWatch(ctx context.Context, a *account) {
	t := time.NewTicker(shareEvery)
	defer t.Stop()
	var after int64
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			within, cancel := context.WithTimeout(ctx, 5*shareEvery)
			newest, msgs, err := g.store.ShareLearned(within, a.Name, "watch", after, a.watch.Share(now, g.replica))
			cancel()
			if err != nil {
				continue // the ledger, which asks the same store, says that it is lost
			}
			after = newest
			for _, m := range msgs {
				if err := a.watch.Hear(now, g.replica, m); err != nil {
					g.log.Warn("another replica's counts are left out", "account", a.Name, "err", err)
				}
			}
		}
	}
}

func (g *Guard) saveWatch(ctx context.Context, a *account) {
	if a.unread {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := g.store.PutBlob(ctx, a.Name, g.blobName(), a.watch.Save()); err != nil {
		g.log.Warn("what is known of the account's usual rates could not be kept", "account", a.Name, "err", err)
	}
}

// alertTargets are the places that the config wants told.
func alertTargets(cfg *config.Config) []alert.Target {
	var targets []alert.Target
	for i, a := range cfg.Alerts {
		t := alert.Target{Name: fmt.Sprintf("alerts[%d]", i)}
		switch {
		case !a.Slack.IsZero():
			t.Kind, t.URL = alert.Slack, a.Slack.Reveal()
		case !a.PagerDuty.IsZero():
			t.Kind, t.RoutingKey = alert.PagerDuty, a.PagerDuty.Reveal()
		default:
			t.Kind, t.URL = alert.Webhook, a.Webhook.Reveal()
		}
		targets = append(targets, t)
	}
	return targets
}

// newAlerts makes the sender of the config's alerts; nil when it has none.
// Where alerts go is read at start: a change of it needs a restart.
func newAlerts(cfg *config.Config, log *slog.Logger) (*alert.Sender, error) {
	targets := alertTargets(cfg)
	if len(targets) == 0 {
		return nil, nil
	}
	return alert.New(alert.Config{Targets: targets, Outbox: alert.NewFile(cfg.DataDir), Log: log})
}

// tell hands an alert over; it never waits.
func (g *Guard) tell(a alert.Alert) {
	if g.alerts != nil && !g.alerts.Send(a) {
		g.log.Warn("an alert was dropped: too many wait already")
	}
}

// logChange logs one step of an incident.
func (g *Guard) logChange(account string, c watch.Change) {
	in := c.Incident
	who := "everybody"
	if len(in.Culprits) > 0 {
		who = in.Culprits[0].String()
	}
	g.log.Warn("incident "+string(c.Phase), "account", account, "id", in.ID, "kind", string(in.Kind), "culprit", who,
		"factor", strconv.FormatFloat(in.Factor, 'f', 1, 64), "excess_messages", in.Excess, "action", string(in.Action))
}

// Incidents are those of all accounts, as the admin port shows them.
func (g *Guard) Incidents() []ops.Incident {
	var all []ops.Incident
	for _, a := range g.fleet.Load().accounts {
		for _, in := range a.watch.Incidents() {
			all = append(all, shown(in))
		}
	}
	return all
}

func shown(in watch.Incident) ops.Incident {
	out := ops.Incident{
		ID: in.ID, Account: in.Account, State: string(in.State), StartedAt: in.StartedAt, DetectedAt: in.DetectedAt,
		Factor: in.Factor, PerSecond: in.Rate, BaselinePer: in.Usual, Excess: in.Excess,
		Action: string(in.Action), AckedBy: in.AckedBy,
	}
	if !in.ResolvedAt.IsZero() {
		at := in.ResolvedAt
		out.ResolvedAt = &at
	}
	if !in.Forecast.ExhaustedAt.IsZero() {
		at := in.Forecast.ExhaustedAt
		out.Forecast.ExhaustedAt = &at
	}
	out.Forecast.UsedAtReset = in.Forecast.UsedAtReset
	for _, c := range in.Culprits {
		one := ops.Culprit{Caller: c.Caller, Event: c.Event, Channel: c.Channel, Share: c.Share}
		if len(c.Payloads) == 1 {
			one.Payload = digest(c.Payloads[0])
		}
		out.Culprits = append(out.Culprits, one)
	}
	for _, s := range in.Samples {
		out.Samples = append(out.Samples, ops.Sample{At: s.At, Caller: s.Caller, Event: s.Event, Channel: s.Channel, Digest: digest(s.Digest), Bytes: s.Bytes})
	}
	for _, e := range in.Timeline {
		out.Timeline = append(out.Timeline, ops.Event{At: e.At, Kind: e.Kind, Text: e.Text})
	}
	return out
}

func digest(d uint64) string { return fmt.Sprintf("%016x", d) }

// incidentAction is what a person orders about an incident.
func (g *Guard) incidentAction(_ context.Context, id, action, who string) error {
	now := time.Now()
	for _, a := range g.fleet.Load().accounts {
		if _, ok := a.watch.Incident(id); !ok {
			continue
		}
		switch action {
		case "contain":
			return a.watch.Contain(now, id, who, "")
		case "release":
			return a.watch.Release(now, id, who, "")
		case "accept":
			return a.watch.Accept(now, id, who)
		case "ack":
			return a.watch.Ack(now, id, who)
		}
		return fmt.Errorf("an incident can be contained, released, accepted or acked, not %q", action)
	}
	return fmt.Errorf("there is no incident %q on this replica", id)
}

// top lists the busiest keys of an account; empty is all of them.
func (g *Guard) top(account, by string, window time.Duration, limit int) ([]ops.TopRow, error) {
	var rows []ops.TopRow
	for _, a := range g.fleet.Load().accounts {
		if account != "" && account != a.Name {
			continue
		}
		for _, c := range a.watch.Top(detect.By(by), window, limit) {
			rows = append(rows, ops.TopRow{Key: c.Key, Count: int64(c.Count), Error: int64(c.Error), Share: c.Share})
		}
	}
	slices.SortStableFunc(rows, func(x, y ops.TopRow) int { return cmp.Compare(y.Count, x.Count) })
	return rows, nil
}
