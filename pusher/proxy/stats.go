package proxy

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pushguard/pushguard/pusher"
)

// Stats are the data port's counters that belong to no app. They only grow.
type Stats struct {
	seed        pusher.Seed
	decision    prometheus.Histogram
	panics      atomic.Int64
	relayed     atomic.Int64
	unavailable atomic.Int64
	crowded     atomic.Int64
	webhooks    atomic.Int64 // calls that were taken
	// Of calls of apps that want them passed on: those that were, and those that were not.
	webhooksPassed, webhooksLost atomic.Int64
	webhooksUnread               atomic.Int64 // events of webhooks that could not be read
	refusals                     [600]atomic.Int64
	heldCounts                   heldCounts
}

func (s *Stats) init() {
	s.seed = pusher.NewSeed()
	s.decision = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "pushguard_decision_seconds",
		Help:    "Time to judge all events of one request, without the call to Pusher.",
		Buckets: []float64{.5e-6, 1e-6, 2e-6, 4e-6, 8e-6, 16e-6, 32e-6, 64e-6, 128e-6, .5e-3, 2e-3, 10e-3, .1, 1},
	})
}

// Decision is the histogram of pushguard_decision_seconds.
func (s *Stats) Decision() prometheus.Histogram { return s.decision }

// Panics counts requests that met a defect of pushguard and were answered 500.
func (s *Stats) Panics() int64 { return s.panics.Load() }

// Webhooks counts Pusher's own calls: taken, of those passed on to the app, and not taken because the app's endpoint
// did not, so that Pusher sends them again.
func (s *Stats) Webhooks() (taken, passed, lost int64) {
	return s.webhooks.Load(), s.webhooksPassed.Load(), s.webhooksLost.Load()
}

// WebhooksUnread counts events of signed webhooks that could not be read. They were passed on.
func (s *Stats) WebhooksUnread() int64 { return s.webhooksUnread.Load() }

// Refusals calls f for each status with which malformed or unsigned requests
// were refused before judgement.
func (s *Stats) Refusals(f func(status int, n int64)) {
	for i := range s.refusals {
		if n := s.refusals[i].Load(); n > 0 {
			f(i, n)
		}
	}
}

func (s *Stats) refused(status int) {
	if status >= 0 && status < len(s.refusals) {
		s.refusals[status].Add(1)
	}
}

// exhausted acts on Pusher's word that the account is over its quota: here at
// once, on the other replicas through the store, whose round trip is not the
// caller's to wait for.
func (p *Proxy) exhausted(a *App, text string, now time.Time) {
	if a.Breaker != nil {
		a.Breaker.Trip(now, text)
	}
	if !a.exhausting.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer a.exhausting.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		p.log.Warn("Pusher says that the account is over its message quota", "app", a.ID, "account", a.Account, "answer", text)
		if err := a.Ledger.Exhaust(ctx, p.now(), "Pusher answered 403: "+text); err != nil {
			p.log.Error("could not tell the other replicas that the account's plan is spent", slog.Any("err", err), "account", a.Account)
		}
	}()
}

// reopened tells every replica that Pusher takes publishes of the account
// again.
func (p *Proxy) reopened(a *App) {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		p.log.Warn("Pusher takes publishes again", "app", a.ID, "account", a.Account)
		if err := a.Ledger.Reopen(ctx, p.now(), "Pusher took a publish again"); err != nil {
			p.log.Error("could not tell the other replicas that Pusher takes publishes again", slog.Any("err", err), "account", a.Account)
		}
	}()
}
