package ops

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/store"
)

// Until an hour has been seen the forecast is a straight line of what the account sent, and says so; from then on it is
// by the profile.
func TestExpectTellsItsBasis(t *testing.T) {
	st, err := store.Open(t.Context(), "embedded", store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	now := noon.Add(-6 * time.Hour)
	l, err := quota.Open(t.Context(), now, st, "r", quota.Config{Account: "care", Plan: quota.Plan{MessagesPerDay: 100_000}, Wait: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := Account{Name: "care", Ledger: l}
	look := func() ForecastStatus { return expect(now, a, l.Snapshot(now), pace{now: 5}) }
	if f := look(); f.Basis != "straight_line" || f.ProfileHours != 0 || f.UsedAtReset != 0 || f.PerSecond != 5 {
		t.Fatalf("%+v", f)
	}
	for now.Before(noon) {
		now = now.Add(5 * time.Minute)
		h, d := l.Reserve(t.Context(), now, nil, quota.Normal, 100)
		if d != quota.Granted {
			t.Fatal(d)
		}
		l.Settle(now, h, 100)
		if err := l.Beat(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	f := look()
	if f.Basis != "profile" || f.ProfileHours < 5 || f.PerSecond != 5 {
		t.Fatalf("%+v", f)
	}
	// 7,200 in six hours: 21,600 by midnight as things go, whatever the last minute was like.
	if f.UsedAtReset < 18_000 || f.UsedAtReset > 25_000 || f.ExhaustedAt != nil {
		t.Fatalf("%+v", f)
	}
}
