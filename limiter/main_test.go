package limiter

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

var (
	background = context.Background()
	t0         = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)
	quiet      = slog.New(slog.NewTextHandler(io.Discard, nil))
)

// at is a time on the story's clock.
func at(d time.Duration) time.Time { return t0.Add(d) }

func newLedger(t testing.TB, cfg quota.Config) *quota.Ledger {
	t.Helper()
	l, _ := newLedgerOn(t, cfg)
	return l
}

func newLedgerOn(t testing.TB, cfg quota.Config) (*quota.Ledger, *store.Store) {
	t.Helper()
	st, err := store.Open(background, "embedded", store.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	cfg.Account = "care"
	l, err := quota.Open(background, t0, st, "a", cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return l, st
}

func plan(n int64) quota.Config {
	return quota.Config{Plan: quota.Plan{Name: "test", MessagesPerDay: n}}
}

func newBreaker(t testing.TB, cfg BreakerConfig, told func(Transition)) *Breaker {
	t.Helper()
	b, err := NewBreaker(t0, cfg, told)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newApp(t testing.TB, p Policy, l *quota.Ledger, b *Breaker) *App {
	t.Helper()
	a, err := New(p, l, b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// ask admits a claim and closes it at once: delivered if it passed.
func ask(a *App, now time.Time, c Claim) Verdict {
	v := a.Admit(background, now, &c)
	if v.Flight == nil {
		a.Done(now, &c, &v, Delivered, c.Cost)
	}
	return v
}

func claim(event string, channels ...string) Claim {
	return Claim{Event: event, Channels: channels, Cost: 1}
}

func (c Claim) by(caller *Caller) Claim { c.Caller = caller; return c }
func (c Claim) saying(n uint64) Claim   { c.Digest = [2]uint64{n, ^n}; return c }
func (c Claim) costing(n int64) Claim   { c.Cost = n; return c }

func normal(r Rule) Rule { r.Priority = quota.Normal; return r }

func wantVerdict(t testing.TB, v Verdict, o Outcome, why Reason) {
	t.Helper()
	if v.Outcome != o || v.Reason != why {
		t.Fatalf("got %v (%v), want %v (%v)", v.Outcome, v.Reason, o, why)
	}
}

// fateOf waits for the fate of a publish under way, or for ctx: then it is Unknown.
func fateOf(ctx context.Context, f *Flight) Fate {
	select {
	case <-f.Done():
		return f.Fate()
	case <-ctx.Done():
		return Unknown
	}
}
