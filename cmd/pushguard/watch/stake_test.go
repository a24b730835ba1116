package watch

import (
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/limiter"
)

// known is what was learned in a day and two hours of the five callers' usual traffic,
// 80 messages a second: 6.9 million a day. It is Tuesday, 10:00.
func known(t *testing.T) (time.Time, []byte) {
	t.Helper()
	c := newTown(t, Auto)
	c.plan = 1 << 40
	c.now = c.now.Add(2 * time.Hour)
	if got := c.run(24*time.Hour, 0, "", 0); len(got) > 0 {
		t.Fatalf("a calm day: %+v", got)
	}
	return c.now, c.w.Save()
}

const usualDay = 80 * 86400

// What the plan bears costs nobody a publish: the culprit is named with samples,
// and why it is not held is said. Where the plan does not bear it, it is held, to what fits.
func TestAutoHoldsOnlyWhatThePlanCannotBear(t *testing.T) {
	now, calm := known(t)
	for _, k := range []struct {
		name      string
		plan      int64 // days of usual traffic, in tenths
		extra     int
		held      bool
		why       string
		atMost    int64 // of the plan used after an hour, in tenths of a usual day more than usual
		notBefore time.Duration
	}{
		{"room for a day of it", 100, 60, false, "the plan bears it", 0, 0},
		{"room for half an hour", 12, 20, false, "the plan bears it", 0, 0},
		{"no room", 10, 60, true, "the plan bears", 1, 0},
		{"room for half an hour, and it goes on", 12, 200, true, "the plan bears", 2, 0},
	} {
		c := newTown(t, Auto)
		if err := c.w.Load(calm); err != nil {
			t.Fatal(err)
		}
		c.now, c.plan, c.used = now, k.plan*usualDay/10, usualDay*10/24
		c.run(3*time.Minute, 0, "", 0)
		in := c.opened(k.extra, "refresh", 0)
		before := c.used
		refused := 0
		for range 60 {
			c.run(time.Minute, k.extra, "refresh", 0)
			refused += c.held["runaway"]
			for _, caller := range []string{"api", "chat", "lab", "shifts"} {
				if c.held[caller] > 0 {
					t.Fatalf("%s: %s was held", k.name, caller)
				}
			}
		}
		in, _ = c.w.Incident(in.ID)
		if (refused > 0) != k.held || (in.Action == Contained) != k.held {
			t.Errorf("%s: %d refused, action %s, want held: %v; %s", k.name, refused, in.Action, k.held, in.Why)
		}
		if !strings.Contains(in.Why, k.why) || len(in.Samples) == 0 {
			t.Errorf("%s: why %q, %d samples", k.name, in.Why, len(in.Samples))
		}
		// What is used is what town counts as offered; what was held is not.
		if sent := c.used - before - 4*int64(refused) - 80*3600; k.held && sent > k.atMost*usualDay/10 {
			t.Errorf("%s: %d messages beyond the usual went out in an hour", k.name, sent)
		}
	}
}

// Before the shape of a day is known a straight line is no forecast.
func TestAutoOnTheFirstDay(t *testing.T) {
	for _, k := range []struct {
		name string
		left int64 // when it begins
		held bool
	}{
		{"two hours of it", 320 * 7200, false},
		{"half an hour of it", 320 * 1800, true},
	} {
		c := newTown(t, Auto)
		c.plan = 1 << 40
		c.run(2*time.Hour, 0, "", 0)
		c.plan = c.used + k.left
		in := c.opened(60, "refresh", 7)
		c.run(50*time.Second, 60, "refresh", 7)
		if in, _ = c.w.Incident(in.ID); (in.Action == Contained) != k.held || in.Why == "" {
			t.Errorf("%s: %s, %q", k.name, in.Action, in.Why)
		}
	}
}

// Whoever fills the replica is held to what leaves places for others, and let
// go when nobody is turned away any more.
func TestAutoHoldsWhoTakesThePlaces(t *testing.T) {
	now, calm := known(t)
	c := newTown(t, Auto)
	full := false
	c.w = New(Config{
		Account: "care", Apps: []string{"1"},
		Used:  func(time.Time) (int64, int64) { return 0, 1 << 40 },
		Level: func(time.Time) limiter.Level { return limiter.Closed },
		Full:  func(time.Time) bool { return full },
	})
	c.app.SetContainment(c.w.Containment("1"))
	if err := c.w.Load(calm); err != nil {
		t.Fatal(err)
	}
	c.now = now
	c.run(time.Minute, 0, "", 0)
	in := c.opened(60, "refresh", 0)
	c.run(time.Minute, 60, "refresh", 0)
	if c.held["runaway"] > 0 {
		t.Fatal("held with places left")
	}
	full = true
	c.run(time.Minute, 60, "refresh", 0)
	if c.held["runaway"] < 1000 {
		t.Errorf("%d held in a minute of refusing others", c.held["runaway"])
	}
	full = false
	c.run(time.Minute, 60, "refresh", 0)
	c.run(time.Minute, 60, "refresh", 0)
	if in, _ = c.w.Incident(in.ID); c.held["runaway"] > 0 || in.Action == Contained {
		t.Errorf("%d held a minute after the last refusal: %s", c.held["runaway"], in.Action)
	}
}

// Strict holds whatever is left of the plan.
func TestStrictHoldsWhateverIsLeft(t *testing.T) {
	now, calm := known(t)
	c := newTown(t, Strict)
	if err := c.w.Load(calm); err != nil {
		t.Fatal(err)
	}
	c.now, c.plan = now, 1<<40
	c.run(time.Minute, 0, "", 0)
	in := c.opened(60, "refresh", 0)
	c.run(time.Minute, 60, "refresh", 0)
	c.run(time.Minute, 60, "refresh", 0)
	if in, _ = c.w.Incident(in.ID); in.Action != Contained || c.held["runaway"] < 3000 {
		t.Errorf("%s, %d held", in.Action, c.held["runaway"])
	}
	c.w.SetMode(Auto)
	c.run(20*time.Second, 60, "refresh", 0)
	c.run(20*time.Second, 60, "refresh", 0)
	if c.held["runaway"] > 0 {
		t.Errorf("%d held under auto with room", c.held["runaway"])
	}
}
