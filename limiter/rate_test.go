package limiter

import (
	"math"
	"strings"
	"testing"
)

func TestParseRate(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Rate
		text string // what String gives; "": the same as in
	}{
		{in: "200/s", want: Rate{PerSecond: 200, Burst: 200, Per: PerApp}},
		{in: "5/s per channel", want: Rate{PerSecond: 5, Burst: 5, Per: PerChannel}},
		{in: "  5/s   per  caller ", want: Rate{PerSecond: 5, Burst: 5, Per: PerCaller}, text: "5/s per caller"},
		{in: "100/m per event", want: Rate{PerSecond: 100.0 / 60, Burst: 2, Per: PerEvent}, text: "1.6666666666666667/s per event"},
		{in: "30/m", want: Rate{PerSecond: 0.5, Burst: 1, Per: PerApp}},
		{in: "1/h", want: Rate{PerSecond: 1.0 / 3600, Burst: 1, Per: PerApp}},
		{in: "10/5s", want: Rate{PerSecond: 2, Burst: 2, Per: PerApp}, text: "2/s"},
		{in: "2.5/s per app", want: Rate{PerSecond: 2.5, Burst: 3, Per: PerApp}, text: "2.5/s"},
		{in: "86400/d", want: Rate{PerSecond: 1, Burst: 1, Per: PerApp}, text: "1/s"},
	} {
		got, err := ParseRate(c.in)
		if err != nil || math.Abs(got.PerSecond-c.want.PerSecond) > 1e-12 || got.Burst != c.want.Burst || got.Per != c.want.Per {
			t.Errorf("%q: %+v, %v; want %+v", c.in, got, err, c.want)
		}
		if want := c.text; want == "" && got.String() != c.in || want != "" && got.String() != want {
			t.Errorf("%q: written as %q", c.in, got)
		}
	}
	for in, why := range map[string]string{
		"": "not a rate", "5": "unit of time is missing", "5/": "unit of time is missing", "5/x": "must be s, m, h or d",
		"x/s": "not a number", "NaN/s": "not a number", "inf/s": "not a number", "0/s": "above zero", "-1/s": "above zero",
		"5/s per": "not a rate", "5/s per user": "per must be", "5/s by channel": "not a rate", "5/0s": "between 1 and",
		"5/-1s": "between 1 and", "1e10/s": "at most",
	} {
		if r, err := ParseRate(in); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %+v, %v; want an error with %q", in, r, err, why)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"200/s", "5/s per channel", "100/m per event", "0.5/h", "10/5s", "", "/", "5/s per", "1e300/d", "-0/s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRate(s)
		if err != nil {
			return
		}
		if !(r.PerSecond > 0) || r.PerSecond > maxPerSecond || r.Burst < 1 || float64(r.Burst) < r.PerSecond {
			t.Fatalf("%q: %+v", s, r)
		}
		if again, err := ParseRate(r.String()); r.PerSecond > 1e-6 && (err != nil || math.Abs(again.PerSecond/r.PerSecond-1) > 1e-4 || again.Per != r.Per) {
			t.Fatalf("%q: %+v is written %q and read %+v, %v", s, r, r, again, err)
		}
	})
}

// People write units out.
func TestRatesTakeUnitsWrittenOut(t *testing.T) {
	for text, perSecond := range map[string]float64{"5000/day per channel": 5000.0 / 86400, "60/minute": 1, "7200/hour": 2, "3/second": 3, "10/5s": 2} {
		r, err := ParseRate(text)
		if err != nil || r.PerSecond != perSecond {
			t.Errorf("%q: %v, %v", text, r.PerSecond, err)
		}
	}
}
