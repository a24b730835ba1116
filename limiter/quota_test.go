package limiter

import (
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
)

func TestParseQuota(t *testing.T) {
	for text, want := range map[string]Rate{
		"5000/day per channel":                   {Burst: 5000, Per: PerChannel, Day: true},
		"20000 messages/day per caller":          {Burst: 20000, Per: PerCaller, Day: true, Messages: true},
		"5000/day per channel /^canvas-(.+?)-/":  {Burst: 5000, Per: PerChannel, Day: true, Part: "/^canvas-(.+?)-/"},
		"10_000 publishes/d per channel t-(*)-*": {Burst: 10000, Per: PerChannel, Day: true, Part: "t-(*)-*"},
		"7/day":                                  {Burst: 7, Day: true},
	} {
		got, err := ParseQuota(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseQuota(got.String()); err != nil || again != want {
			t.Errorf("%q is written as %q, which is %+v, %v", text, got, again, err)
		}
	}
	for text, why := range map[string]string{
		"5000": "not a quota", "5000/hour": "per day", "0/day": "from 1", "5000/day per user": "per must be", "99999999999/day": "from 1",
		"5/day per caller x(*)": "only a channel", "5/day per channel x": "exactly one group", "5/day per channel (a)-(b)": "exactly one group",
		"5/day per channel /^a-/": "0 groups", "5/day per channel /(a)(b)/": "2 groups", "5/day per channel /(a/": "cannot be read", "5/day per channel /(a)": "ends with a slash",
	} {
		if _, err := ParseQuota(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want %q", text, err, why)
		}
	}
}

func TestPartsOfChannels(t *testing.T) {
	for _, c := range []struct{ pattern, channel, want string }{
		{"canvas-(*)-*", "canvas-acme-board-1", "acme"}, {"canvas-(*)-*", "canvas-acme", "-"}, {"canvas-(*)", "canvas-acme", "acme"},
		{"/^canvas-(.+?)-/", "canvas-acme-1", "acme"}, {"/^canvas-(.+?)-/", "x-canvas-acme-1", "-"}, {"*-(*)-end", "a-b-end", "b"}, {"t?-(*)", "t1-x", "x"},
	} {
		p, err := compilePart(c.pattern)
		if err != nil {
			t.Fatal(c.pattern, err)
		}
		got, ok := p.of(c.channel)
		if !ok {
			got = "-"
		}
		if got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.pattern, c.channel, got, c.want)
		}
	}
}

func quotaRule(text string) Rule {
	r, err := ParseQuota(text)
	if err != nil {
		panic(err)
	}
	return normal(Rule{Rates: []Rate{r}})
}

func TestQuotaOfADay(t *testing.T) {
	a := newApp(t, Policy{Rules: []Rule{quotaRule("3/day per channel canvas-(*)-*")}}, nil, nil)
	evening := t0.Add(14*time.Hour + 50*time.Minute) // 23:50 UTC
	for i, channel := range []string{"canvas-acme-1", "canvas-acme-2", "canvas-acme-3"} {
		if v := ask(a, evening.Add(time.Duration(i)*time.Second), claim("e", channel)); v.Outcome != Sent {
			t.Fatalf("%d: %v", i, v.Outcome)
		}
	}
	v := ask(a, evening.Add(time.Minute), claim("e", "canvas-acme-4"))
	wantVerdict(t, v, Throttled, QuotaSpent)
	if v.RetryAfter != 9*time.Minute || v.Channel != 0 {
		t.Fatalf("again in %v, channel %d", v.RetryAfter, v.Channel)
	}
	for _, channel := range []string{"canvas-other-1", "elsewhere"} {
		wantVerdict(t, ask(a, evening.Add(time.Minute), claim("e", channel)), Sent, NoReason)
	}
	// A publish to two channels of a tenant is one.
	wantVerdict(t, ask(a, evening.Add(time.Minute), claim("e", "canvas-two-1", "canvas-two-2", "x")), Sent, NoReason)
	wantVerdict(t, ask(a, evening.Add(11*time.Minute), claim("e", "canvas-acme-4")), Sent, NoReason)
}

func TestQuotaInMessagesIsCountedAsBilled(t *testing.T) {
	a := newApp(t, Policy{Rules: []Rule{quotaRule("100 messages/day per caller")}}, nil, nil)
	api := a.Caller("api")
	send := func(estimate, actual int64, fate Fate) Verdict {
		c := claim("e", "c").by(api).costing(estimate)
		v := a.Admit(background, t0, &c)
		a.Done(t0, &c, &v, fate, actual)
		return v
	}
	wantVerdict(t, send(40, 10, Delivered), Sent, NoReason) // 10 used
	wantVerdict(t, send(40, 40, NotSent), Sent, NoReason)   // 10
	wantVerdict(t, send(50, 50, Delivered), Sent, NoReason) // 60
	wantVerdict(t, send(41, 41, Delivered), Throttled, QuotaSpent)
	wantVerdict(t, send(40, 40, Delivered), Sent, NoReason) // 100
	wantVerdict(t, send(1, 1, Delivered), Throttled, QuotaSpent)
	if b := a.Rules()[0].rates[PerCaller]; len(b) != 1 || quota.DayOf(t0) == 0 {
		t.Fatal(b)
	}
}
