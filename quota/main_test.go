package quota

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

var (
	ctx   = context.Background()
	noon  = time.Date(2026, 5, 11, 12, 0, 0, 0, time.UTC)
	quiet = slog.New(slog.NewTextHandler(io.Discard, nil))
)

func embedded(t testing.TB) *store.Store {
	t.Helper()
	return open(t, "embedded", store.Options{})
}

func open(t testing.TB, url string, o store.Options) *store.Store {
	t.Helper()
	o.Log = quiet
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second // the machine may be busy with other tests
	}
	st, err := store.Open(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	return st
}

// eachStore runs a story on the embedded store and on a real Redis.
func eachStore(t *testing.T, story func(t *testing.T, st *store.Store)) {
	t.Run("embedded", func(t *testing.T) { story(t, embedded(t)) })
	t.Run("redis", func(t *testing.T) { story(t, open(t, redistest.Start(t).URL(), store.Options{})) })
}

func plan(n int64) Config { return Config{Account: "care", Plan: Plan{"test", n}} }

func join(t testing.TB, st *store.Store, now time.Time, name string, cfg Config) *Ledger {
	t.Helper()
	l, err := Open(ctx, now, st, name, cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func beat(t testing.TB, now time.Time, ls ...*Ledger) {
	t.Helper()
	for _, l := range ls {
		if err := l.Beat(ctx, now); err != nil {
			t.Fatal(err)
		}
	}
}

// spend sends up to n messages of cost 1, and says how many went out and why it ended.
func spend(l *Ledger, now time.Time, s *Share, p Priority, n int) (sent int, why Denial) {
	for ; sent < n; sent++ {
		h, d := l.Reserve(ctx, now, s, p, 1)
		if d != Granted {
			return sent, d
		}
		l.Settle(now, h, 1)
	}
	return sent, Granted
}

func storeAudit(who, what string) store.AuditEntry {
	return store.AuditEntry{At: noon, Who: who, What: what}
}
