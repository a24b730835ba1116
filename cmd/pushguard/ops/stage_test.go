package ops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/config"
	"github.com/pushguard/pushguard/cmd/pushguard/trial"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/pusher/proxy"
	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/fanout"
	"github.com/pushguard/pushguard/quota/store"
)

const stageToken = "correct-horse-battery"

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

// stage is a guard without a data port: real ledgers, judges and breakers, with
// publishes that the test makes itself, and a detector that the test plays.
type stage struct {
	t        testing.TB
	accounts []Account
	detector *detector
	cfg      Config
	clock    atomic.Pointer[time.Time] // nil: the real one
}

func (s *stage) now() time.Time {
	if at := s.clock.Load(); at != nil {
		return *at
	}
	return time.Now()
}

func newStage(t testing.TB, at ...time.Time) *stage {
	t.Helper()
	s := &stage{t: t, detector: &detector{}}
	if len(at) > 0 {
		s.clock.Store(&at[0])
	}
	st, err := store.Open(t.Context(), "embedded", store.Options{Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s.account(st, "care", "startup", []string{"care-api", "notifier", "billing", "alarms", "refresher"}, []limiter.Rule{
		{Name: "alarms", Match: limiter.Match{Event: []string{"alarm.*"}}, Priority: quota.Critical},
		{Name: "try-slower", Match: limiter.Match{Event: []string{"status.*"}}, Priority: quota.Normal, Rates: []limiter.Rate{{PerSecond: 2, Burst: 2, Per: limiter.PerCaller}}, Mode: limiter.Observe},
		{Name: "refresh", Match: limiter.Match{Event: []string{"notification.*"}, Channel: []string{"private-user-*"}}, Priority: quota.Bulk, Dedupe: 2 * time.Second,
			Rates: []limiter.Rate{{PerSecond: 20, Burst: 40, Per: limiter.PerCaller}}},
		// One that was given no name is called by what it matches, at length.
		{Name: "event=report.*,export.* channel=private-tenant-*,presence-tenant-* caller=billing", Match: limiter.Match{Event: []string{"report.*", "export.*"}, Channel: []string{"private-tenant-*", "presence-tenant-*"}, Caller: []string{"billing"}}},
	})
	s.account(st, "shop", "pro", []string{"checkout", "stock"}, []limiter.Rule{
		{Name: "stock", Match: limiter.Match{Event: []string{"stock.*"}}, Priority: quota.Normal, Conflate: time.Second},
	})
	s.cfg = Config{
		Version: "1.0.0-test", Replica: "stage-1", Started: s.now(), Now: s.now,
		Accounts: func() []Account { return s.accounts },
		Stats:    proxy.New(proxy.Config{Log: silent}).Stats(),
		Store:    func() (string, string) { return "embedded", "up" },
		Checks: []Check{
			{Name: "started", Run: func() (string, error) { return "", nil }},
			{Name: "lease_care", Run: func() (string, error) { return "a lease is held", nil }},
		},
		Token: stageToken, Log: silent,
		ParseRule: parseStageRule,
		Incidents: s.detector.list, IncidentAction: s.detector.act, Top: s.detector.top,
	}
	return s
}

func (s *stage) account(st *store.Store, name, plan string, callers []string, rules []limiter.Rule) {
	s.t.Helper()
	p, _ := quota.PlanByName(plan)
	floors := [quota.Priorities]float64{quota.Normal: 0.1, quota.Critical: 0.05}
	ledger, err := quota.Open(s.t.Context(), s.now(), st, "stage-1", quota.Config{Account: name, Plan: p, Floors: floors}, silent)
	if err != nil {
		s.t.Fatal(err)
	}
	breaker, err := limiter.NewBreaker(s.now(), limiter.BreakerConfig{}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	policy := limiter.Policy{App: name + "-1", Rules: rules}
	for _, c := range callers {
		policy.Callers = append(policy.Callers, limiter.CallerPolicy{Name: c})
	}
	judge, err := limiter.New(policy, ledger, breaker)
	if err != nil {
		s.t.Fatal(err)
	}
	up, err := proxy.NewUpstream(proxy.UpstreamConfig{URL: "http://127.0.0.1:9", Key: pusher.NewKey("k", "s")})
	if err != nil {
		s.t.Fatal(err)
	}
	s.accounts = append(s.accounts, Account{
		Recent: trial.NewHistory(),
		Name:   name, Ledger: ledger, Breaker: breaker, Floors: floors,
		Apps: []*proxy.App{{ID: name + "-1", Account: name, Limiter: judge, Ledger: ledger, Breaker: breaker, Upstream: up, Fanout: fanout.New(1, nil)}},
	})
}

// parseStageRule knows of the file's words those that these tests use.
func parseStageRule(text string) (limiter.Rule, error) {
	r, err := config.ParseRule(text)
	out := limiter.Rule{Name: r.Name, Match: limiter.Match{Event: r.Match.Event, Channel: r.Match.Channel, Caller: r.Match.Caller},
		Priority: quota.Normal, Dedupe: r.Dedupe.Window, Conflate: r.Conflate.Window}
	for _, x := range r.Rate {
		out.Rates = append(out.Rates, limiter.Rate(x))
	}
	return out, err
}

// publish judges n publishes of one caller, each of them different.
func (s *stage) publish(now time.Time, account, caller, event, channel string, n int) (sent int) {
	for _, a := range s.accounts {
		if a.Name != account {
			continue
		}
		judge := a.Apps[0].Limiter
		for range n {
			serial := stageSerial.Add(1)
			c := limiter.Claim{Caller: judge.Caller(caller), Event: event, Channels: []string{channel}, Digest: [2]uint64{serial, serial}, Cost: 2}
			a.Recent.Note(now, a.Apps[0].ID, caller, event, c.Channels, serial, 2)
			v := judge.Admit(s.t.Context(), now, &c)
			judge.Done(now, &c, &v, limiter.Delivered, 2)
			if v.Outcome == limiter.Sent {
				sent++
			}
		}
	}
	return sent
}

// stageRates are what live publishes a second, by account and caller; the last
// of the first account runs away.
var stageRates = [][]float64{{5, 3, 2, 2, 6}, {7, 0}}

var stageSerial atomic.Uint64

// server is the admin port of the stage, called without a network.
func (s *stage) server(change ...func(*Config)) *Server {
	cfg := s.cfg
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

// yesterday fills the book with the shape of a day up to now, as if this replica
// had watched: night and day, and a caller that runs away.
func (s *stage) yesterday(srv *Server, now time.Time) {
	for n, a := range s.accounts {
		b := srv.book(a.Name)
		b.mu.Lock()
		names := []string{}
		for _, c := range a.Apps[0].Limiter.Callers() {
			names = append(names, c.Name())
			b.callerIndex(c.Name())
		}
		plan := a.Ledger.Snapshot(now).Plan.MessagesPerDay
		midnight := quota.DayOf(now).Start()
		begin := now.Add(-24 * time.Hour).Truncate(time.Minute)
		var used float64
		for at := begin; at.Before(now); at = at.Add(time.Minute) {
			if at.Equal(midnight) {
				used = 0
			}
			p := point{at: at.Unix() + 59, plan: plan}
			for i := range names {
				rate := stageRates[n][i] * (0.7 + 0.3*math.Cos(2*math.Pi*float64(now.Sub(at))/float64(24*time.Hour)))
				asked := int64(rate * 60)
				p.callers = append(p.callers, pair{asked: asked})
				p.groups[groupPassed] += asked
			}
			p.groups[groupFolded] = p.groups[groupPassed] / 12
			used += 0.6 * float64(plan) / 1440
			p.used = int64(used)
			b.coarse.add(p)
		}
		for at := now.Add(-finePoints * time.Second); at.Before(now); at = at.Add(time.Second) {
			p := point{at: at.Unix(), plan: plan, used: int64(used)}
			for i := range names {
				asked := int64(stageRates[n][i]) + (at.Unix()+int64(i))%2
				p.callers = append(p.callers, pair{asked: asked})
				p.groups[groupPassed] += asked
			}
			if since := at.Sub(now.Add(-3 * time.Minute)).Seconds(); n == 0 && since > 0 {
				asked, passed := int64(20+since/2), int64(20)
				p.callers[len(names)-1] = pair{asked, asked - passed}
				p.groups[groupPassed] += passed
				p.groups[groupLimited] += asked - passed
				p.groups[groupFolded] += 4
			}
			used += float64(p.groups[groupPassed])
			p.used = int64(used)
			b.fine.add(p)
		}
		b.mu.Unlock()
		if err := a.Ledger.SetUsage(s.t.Context(), now, int64(used), "stage", "as if the day had been watched"); err != nil {
			s.t.Fatal(err)
		}
	}
}

// live publishes in real time until ctx ends.
func (s *stage) live(ctx context.Context) {
	var wg sync.WaitGroup
	for _, a := range s.accounts {
		wg.Go(func() { a.Ledger.Run(ctx) })
	}
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case now := <-tick.C:
				s.publish(now, "care", "refresher", "notification.refresh", fmt.Sprintf("private-user-%d", n%200), 5)
				for i, c := range []struct{ caller, event, channel string }{
					{"care-api", "record.changed", "private-ward-1"}, {"notifier", "status.changed", "private-team-1"},
					{"billing", "invoice.paid", "private-account-1"}, {"alarms", "alarm.raised", "private-ward-2"},
				} {
					if n%(4+2*i) == 0 {
						s.publish(now, "care", c.caller, c.event, c.channel, 1)
					}
				}
				if n%3 == 0 {
					s.publish(now, "shop", "checkout", "order.updated", "private-shop-1", 1)
				}
			}
		}
	})
	wg.Wait()
}

// detector is a detector as the dashboard sees one.
type detector struct {
	mu        sync.Mutex
	incidents []Incident
	acts      []string
	contain   func(on bool)
}

func (d *detector) list() []Incident {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.incidents)
}

func (d *detector) act(_ context.Context, id, action, who string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.acts = append(d.acts, action+" "+id+" by "+who)
	for i := range d.incidents {
		in := &d.incidents[i]
		if in.ID != id {
			continue
		}
		switch action {
		case "contain":
			in.Action = ActionContained
		case "release":
			in.Action = ActionReleased
		case "ack":
			in.AckedBy = who
		}
		in.Timeline = append(slices.Clone(in.Timeline), Event{At: time.Now().UTC(), Kind: "act", Severity: "note", Text: action + " by " + who})
		if d.contain != nil && action != "ack" {
			d.contain(action == "contain")
		}
		return nil
	}
	return errors.New("no such incident")
}

func (d *detector) top(_, by string, _ time.Duration, limit int) ([]TopRow, error) {
	rows := map[string][]TopRow{
		"caller":  {{"refresher", 6012, 0, 0.87}, {"care-api", 300, 0, 0.04}, {"alarms", 120, 0, 0.02}},
		"event":   {{"notification.refresh", 6012, 0, 0.87}, {"record.changed", 300, 0, 0.04}},
		"channel": {{"private-user-17", 410, 38, 0.06}, {"private-user-4", 402, 38, 0.058}, {"private-ward-1", 300, 12, 0.04}},
		"payload": {{"9c1f04ab22e07d11", 3020, 44, 0.43}, {"77aa01fe3b90c2d4", 1010, 44, 0.15}},
	}[by]
	return rows[:min(limit, len(rows))], nil
}

// storm is an incident as a detector would tell it.
func storm(now time.Time) Incident {
	began := now.Add(-3 * time.Minute).UTC()
	end := now.Add(90 * time.Minute).UTC()
	return Incident{
		ID: "care-20260511-1", Account: "care", State: IncidentOpen, StartedAt: began, DetectedAt: began.Add(6 * time.Second),
		Factor: 14.2, PerSecond: 100, BaselinePer: 7, Excess: 9120, Action: ActionSuggested,
		Culprits: []Culprit{
			{Caller: "refresher", Event: "notification.refresh", Channel: "private-user-*", Share: 0.93},
			{Caller: "refresher", Event: "notification.count", Channel: "private-user-*", Payload: "9c1f04ab22e07d11", Share: 0.05},
		},
		Forecast: ForecastStatus{ExhaustedAt: &end},
		Samples: []Sample{
			{At: began.Add(5 * time.Second), Caller: "refresher", Event: "notification.refresh", Channel: "private-user-17", Digest: "9c1f04ab22e07d11", Bytes: 41, Count: 3020},
			{At: began.Add(6 * time.Second), Caller: "refresher", Event: "notification.refresh", Channel: "private-user-4", Digest: "77aa01fe3b90c2d4", Bytes: 39, Count: 1010},
		},
		Timeline: []Event{
			{began, "change", "note", "the rate of refresher · notification.refresh begins to rise"},
			{began.Add(6 * time.Second), "detected", "warn", "noticed at 3.1 times the baseline; 93 % of the excess is refresher · notification.refresh on private-user-*"},
			{began.Add(7 * time.Second), "alert", "note", "alert sent to Slack"},
		},
	}
}

// resolved is one of last night.
func resolved(now time.Time) Incident {
	in := storm(now.Add(-9 * time.Hour))
	end := in.StartedAt.Add(22 * time.Minute)
	in.ID, in.State, in.ResolvedAt, in.Action, in.Factor, in.AckedBy = "care-20260510-2", IncidentResolved, &end, ActionReleased, 4.6, "anna"
	in.Culprits = []Culprit{{Caller: "notifier", Event: "*", Channel: "private-team-*", Share: 0.88}}
	in.Forecast = ForecastStatus{} // nothing was known yet
	return in
}

// ask calls the admin port as somebody on this machine would.
func ask(t testing.TB, srv http.Handler, method, target string, body io.Reader, change ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:8081"+target, body)
	r.RemoteAddr = net.JoinHostPort("127.0.0.1", "50000")
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	srv.ServeHTTP(w, r)
	return w
}

func withToken(r *http.Request) { r.Header.Set("Authorization", "Bearer "+stageToken) }

func from(addr string) func(*http.Request) { return func(r *http.Request) { r.RemoteAddr = addr } }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}
