package ops

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota/forecast"
)

// A runaway that the breaker sheds for its rate: metrics and status say how fast, what follows, and until when.
func TestBurnIsShown(t *testing.T) {
	s := newStage(t, noon)
	srv := s.server()
	breaker, plan := s.accounts[0].Breaker, int64(1_000_000)
	even := plan / (24 * 60 * 60)
	has := func(when string, want ...string) {
		t.Helper()
		text := ask(t, srv, "GET", "/metrics", nil).Body.String()
		for _, w := range want {
			if !strings.Contains(text, w+"\n") {
				t.Errorf("%s: /metrics has no %s", when, w)
			}
		}
	}
	has("at first", `pushguard_burn_state{account="care",state="closed"} 1`, `pushguard_burn_trips{account="care"} 0`, `pushguard_burn_until_seconds{account="care"} 0`)
	if text := ask(t, srv, "GET", "/metrics", nil).Body.String(); strings.Contains(text, "pushguard_burn_rate{") {
		t.Error("a rate is shown before anything was observed")
	}
	var sent int64
	will := func() forecast.Forecast {
		return forecast.Forecast{UsedAtReset: 9 * plan, ExhaustedAt: noon.Add(time.Hour)}
	}
	tripped := time.Time{}
	for i := 0; i < 300 && tripped.IsZero(); i++ {
		s.at(s.now().Add(time.Second))
		sent += 50 * even
		if _, changed := breaker.ObserveBurn(s.now(), sent, sent, plan, will); changed {
			tripped = s.now()
		}
	}
	if tripped.IsZero() {
		t.Fatal("fifty times the even rate, and the breaker lets it pass")
	}
	has("shed", `pushguard_burn_state{account="care",state="shed_bulk"} 1`, `pushguard_burn_state{account="care",state="closed"} 0`,
		`pushguard_burn_trips{account="care"} 1`, `pushguard_breaker_transitions_total{account="care",state="shed_bulk"} 1`)
	text := ask(t, srv, "GET", "/metrics", nil).Body.String()
	for _, window := range []string{"10s", "1m", "2m"} {
		if !strings.Contains(text, `pushguard_burn_rate{account="care",window="`+window+`"} 4`) { // 47.5: even is rounded down
			t.Errorf("no rate over %s", window)
		}
	}
	if strings.Contains(text, `window="2h24m"`) {
		t.Error("a rate over more than was watched")
	}
	var st Status
	if err := json.Unmarshal(ask(t, srv, "GET", "/api/v1/status", nil).Body.Bytes(), &st); err != nil {
		t.Fatal(err)
	}
	b := st.Accounts[0].Breaker
	if b.State != "shed_bulk" || b.Burn.State != "shed_bulk" || b.Burn.Mode != "on" || b.Burn.Trips != 1 || b.Burn.Until == nil ||
		b.Burn.Until.Sub(tripped) != 5*time.Minute || !strings.Contains(b.Burn.Reason, "times its even rate over 2 min") || b.Reason != b.Burn.Reason {
		t.Errorf("%+v", b)
	}
	if w := b.Burn.Windows; len(w) != 6 || w[0].OverS != 120 || w[0].Times == nil || *w[0].Times < 40 || w[0].Mark != 14.4 || w[4].Times != nil {
		t.Errorf("%+v", w)
	}
	// Yesterday's state is none of today's.
	s.at(s.now().Add(24 * time.Hour))
	has("the next day", `pushguard_burn_state{account="care",state="closed"} 1`, `pushguard_burn_trips{account="care"} 0`)
}

func TestWindowNames(t *testing.T) {
	for d, want := range map[time.Duration]string{10 * time.Second: "10s", time.Minute: "1m", 12 * time.Minute: "12m", 144 * time.Minute: "2h24m", time.Hour: "1h", 90 * time.Second: "1m30s"} {
		if got := windowName(d); got != want {
			t.Errorf("%v is called %s, want %s", d, got, want)
		}
	}
}
