package quota

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/store"
	"github.com/pushguard/pushguard/quota/store/redistest"
)

// The ledger learns the profile from its heartbeats, keeps it in the store, and a correction by hand is no traffic.
func TestLedgerForecast(t *testing.T) {
	srv := redistest.Start(t)
	st := open(t, srv.URL(), store.Options{Timeout: short})
	l := join(t, st, DayOf(noon).Start(), "a", plan(100_000))
	now := DayOf(noon).Start()
	for now.Before(noon) {
		if n, why := spend(l, now, nil, Normal, 50); n != 50 {
			t.Fatal(n, why)
		}
		now = now.Add(10 * time.Minute)
		beat(t, now, l)
	}
	if err := l.SetUsage(ctx, now, 50_000, "ann", ""); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	beat(t, now, l)
	got := l.Forecast(now)
	if got.UsedAtReset < 52_500 || got.UsedAtReset > 54_500 || !got.ExhaustedAt.IsZero() || got.Hours < 11 {
		t.Fatalf("%+v, want about 53600 and no end", got)
	}
	l.keepProfile(ctx)
	if m := join(t, st, now, "b", plan(100_000)); m.Forecast(now).Hours != got.Hours {
		t.Fatal("the profile was not kept")
	}
	if err := st.PutBlob(ctx, "care", profileBlob, []byte("nonsense")); err != nil {
		t.Fatal(err)
	}
	if m := join(t, st, now, "c", plan(100_000)); m.Forecast(now).Hours != 0 {
		t.Fatal("nonsense was believed")
	}
	srv.Kill()
	l.forecaster.Unsaved()
	l.keepProfile(ctx)
	if l.forecaster.Save() == nil {
		t.Fatal("what could not be kept must be kept later")
	}
}
