package words

import (
	"math"
	"testing"
	"time"
)

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(-1234), "-1,234"}, {Count(1234567), "1,234,567"}, {Count(math.MinInt64), "-9,223,372,036,854,775,808"},
		{Rate(0), "0"}, {Rate(0.004), "0"}, {Rate(0.049), "0.05"}, {Rate(3), "3.0"}, {Rate(99.94), "99.9"}, {Rate(99.96), "100"}, {Rate(1800002.04), "1,800,002"}, {Rate(math.Inf(1)), "unknown"},
		{Times(1.74), "1.7"}, {Times(9.96), "10"}, {Times(2684.2), "2,684"}, {Times(math.Inf(1)), "many"}, {Times(math.NaN()), "many"},
		{Part(0), "0 %"}, {Part(0.0001), "under 0.1 %"}, {Part(0.375), "37.5 %"}, {Part(0.9996), "100 %"}, {Part(2.08), "208 %"}, {Part(1961.3), "1,961 plans"}, {Part(19.6), "20 plans"},
		{Plural(1, "caller"), "1 caller"}, {Plural(1000, "caller"), "1,000 callers"}, {Plural(0, "caller"), "0 callers"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 350 * time.Millisecond: "350 ms", 1500 * time.Millisecond: "1.5 s", 90 * time.Second: "1 min 30 s", 2 * time.Hour: "2 h",
		26*time.Hour + 59*time.Minute: "1 d 2 h", 59*time.Second + 600*time.Millisecond: "1 min", 48 * time.Hour: "2 d", 61 * time.Minute: "1 h 1 min", -time.Minute: "-1 min",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%s) = %q, want %q", d, got, want)
		}
	}
	for text, want := range map[string]time.Duration{
		"2d": 48 * time.Hour, "1h30m": 90 * time.Minute, "10 min": 10 * time.Minute, "1 h 30 min": 90 * time.Minute, "90s": 90 * time.Second,
		"500ms": 500 * time.Millisecond, "0": 0, "0s": 0, "1w": 7 * 24 * time.Hour, "1.5d": 36 * time.Hour, "2 Days": 48 * time.Hour,
	} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("ParseSpan(%q) = %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "2", "d", "2 fortnights", "-2h", "1h-3m", "1h 3", "999999999999w"} {
		if got, err := ParseSpan(text); err == nil {
			t.Errorf("ParseSpan(%q) = %s, want an error", text, got)
		}
	}
	for d, want := range map[time.Duration]string{10 * time.Minute: "10m", 24 * time.Hour: "24h", 90 * time.Minute: "1h30m", 3500 * time.Millisecond: "3.5s", 0: "0s", 10 * time.Second: "10s", 70 * time.Second: "1m10s"} {
		if got := Setting(d); got != want {
			t.Errorf("Setting(%s) = %q, want %q", d, got, want)
		}
	}
}

// What Span and Setting write, ParseSpan reads.
func TestSpansAreRead(t *testing.T) {
	for _, d := range []time.Duration{time.Millisecond, 3 * time.Second, 90 * time.Second, 61 * time.Minute, 50 * time.Hour, 30 * 24 * time.Hour} {
		for _, text := range []string{Span(d), Setting(d)} {
			if got, err := ParseSpan(text); err != nil || got != d {
				t.Errorf("ParseSpan(%q) = %s, %v, want %s", text, got, err, d)
			}
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := Printable("a\x1b[2Jb\u202ec\xff\n"); got != "a?[2Jb?c??" {
		t.Errorf("got %q", got)
	}
}
