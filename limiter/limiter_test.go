package limiter

import (
	"errors"
	"hash/maphash"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// The order of judgement: a publish that every stage would refuse is refused by the first; with
// that one content, by the next; and so on to the end.
func TestOrderOfJudgement(t *testing.T) {
	stages := []struct {
		name string
		o    Outcome
		why  Reason
	}{
		{"brake", Braked, BrakePulled},
		{"containment", Contained, Culprit},
		{"dedupe", Deduplicated, Duplicate},
		{"caller", Throttled, CallerRate},
		{"rule, by caller", Throttled, CallerRate},
		{"event", Throttled, EventRate},
		{"rule, by event", Throttled, EventRate},
		{"channel", Throttled, ChannelRate},
		{"rule, by channel", Throttled, ChannelRate},
		{"rule", Throttled, RuleRate},
		{"app", Throttled, AppRate},
		{"breaker", OverBudget, SheddingNormal},
		{"budget", OverBudget, PlanSpent},
		{"none", Sent, NoReason},
	}
	for first, want := range stages {
		t.Run(want.name, func(t *testing.T) {
			// A twin that is delivered first empties the buckets of one token.
			tight := func(stage int) *Rate {
				if stage >= first {
					return &Rate{PerSecond: 0.001, Burst: 1}
				}
				return &Rate{PerSecond: 1000, Burst: 1000}
			}
			of := func(stage int, per Per) Rate { r := *tight(stage); r.Per = per; return r }
			p := Policy{
				Rules:     []Rule{normal(Rule{Dedupe: time.Second, Rates: []Rate{of(9, PerApp), of(8, PerChannel), of(6, PerEvent), of(4, PerCaller)}})},
				Callers:   []CallerPolicy{{Name: "api", Rate: tight(3)}},
				EventRate: tight(5), ChannelRate: tight(7), AppRate: tight(10),
			}
			l := newLedger(t, plan(1000))
			a := newApp(t, p, l, newBreaker(t, BreakerConfig{}, nil))
			c := claim("news", "room").by(a.Caller("api")).saying(1)
			wantVerdict(t, ask(a, at(0), c), Sent, NoReason)
			used := int64(900)
			if first <= 11 {
				used = 960
			}
			if err := l.SetUsage(background, at(0), used, "test", "story"); err != nil {
				t.Fatal(err)
			}
			if first > 2 {
				c = c.saying(2)
			}
			if first <= 12 {
				c = c.costing(200)
			}
			a.SetContainment(func(time.Time, *Claim) bool { return first > 1 })
			if first == 0 {
				if err := l.SetBrake(background, at(0), &quota.Brake{Allow: "critical", Reason: "story"}); err != nil {
					t.Fatal(err)
				}
			}
			v := ask(a, at(0), c)
			wantVerdict(t, v, want.o, want.why)
			if v.Would != v.Outcome || (v.Channel == 0) != (want.why == ChannelRate) {
				t.Fatalf("%+v", v)
			}
		})
	}
}

func TestFirstMatchingRuleHolds(t *testing.T) {
	a := newApp(t, Policy{
		Callers: []CallerPolicy{{Name: "api"}, {Name: "cron"}},
		Rules: []Rule{
			normal(Rule{Name: "watched", Match: Match{Event: []string{"*"}}, Mode: Observe}),
			normal(Rule{Name: "alarms", Match: Match{Event: []string{"alarm.*", "fire"}}}),
			normal(Rule{Name: "users", Match: Match{Channel: []string{"private-user-*"}}}),
			normal(Rule{Name: "cron", Match: Match{Caller: []string{"cron"}, Event: []string{"x*"}}}),
			normal(Rule{Name: "rest of x", Match: Match{Event: []string{"x*"}}}),
		},
	}, nil, nil)
	for _, c := range []struct {
		event    string
		channels string
		caller   *Caller
		want     string
	}{
		{"alarm.fire", "private-user-1", nil, "alarms"},
		{"fire", "a", nil, "alarms"},
		{"hello", "private-user-1", nil, "users"},
		{"hello", "a b private-user-1", nil, "users"}, // any channel is enough
		{"xyz", "a", a.Caller("cron"), "cron"},
		{"xyz", "a", a.Caller("api"), "rest of x"},
		{"xyz", "a", nil, "rest of x"},
		{"hello", "a", a.Caller("cron"), "default"},
		{"hello", "", nil, "default"},
	} {
		r := a.Match(c.event, strings.Fields(c.channels), c.caller)
		if r.Name() != c.want {
			t.Errorf("%s on %q: rule %q, want %q", c.event, c.channels, r.Name(), c.want)
		}
	}
	if d := a.DefaultRule(); d.Priority() != quota.Normal || d.WantsDigest() {
		t.Errorf("default rule: %+v", d.Spec())
	}
	if n := len(a.Rules()); n != 6 {
		t.Errorf("%d rules", n)
	}
}

func TestARefusalTakesNoTokenFromOthers(t *testing.T) {
	a := newApp(t, Policy{
		Callers: []CallerPolicy{{Name: "api", Rate: &Rate{PerSecond: 0.001, Burst: 10}}},
		AppRate: &Rate{PerSecond: 0.001, Burst: 10},
		Rules:   []Rule{normal(Rule{Rates: []Rate{{PerSecond: 0.001, Burst: 1, Per: PerChannel}}})},
	}, nil, nil)
	api := a.Caller("api")
	wantVerdict(t, ask(a, at(0), claim("e", "b").by(api)), Sent, NoReason)
	for range 50 {
		v := ask(a, at(0), claim("e", "a", "b", "c").by(api))
		wantVerdict(t, v, Throttled, ChannelRate)
		if v.Channel != 1 {
			t.Fatalf("channel %d is at fault, want 1", v.Channel)
		}
		if v.RetryAfter < 999*time.Second || v.RetryAfter > 1000*time.Second {
			t.Fatal(v.RetryAfter)
		}
	}
	// Neither a nor c, nor the caller, nor the app has paid for those.
	wantVerdict(t, ask(a, at(0), claim("e", "c", "a").by(api)), Sent, NoReason)
	for i := range 8 {
		wantVerdict(t, ask(a, at(0), claim("e", string(rune('k'+i))).by(api)), Sent, NoReason)
	}
	wantVerdict(t, ask(a, at(0), claim("e", "z").by(api)), Throttled, CallerRate)
}

func TestAChannelNamedTwicePaysOnce(t *testing.T) {
	a := newApp(t, Policy{ChannelRate: &Rate{PerSecond: 0.001, Burst: 2}}, nil, nil)
	wantVerdict(t, ask(a, at(0), claim("e", "a", "a", "a")), Sent, NoReason)
	wantVerdict(t, ask(a, at(0), claim("e", "a")), Sent, NoReason)
	wantVerdict(t, ask(a, at(0), claim("e", "a", "b")), Throttled, ChannelRate)
}

// Two publishes that name the same channels, in whatever order, lock their buckets in one order.
func TestChannelsAreLockedInOneOrder(t *testing.T) {
	a := newApp(t, Policy{}, nil, nil)
	keys := func(channels ...string) (hashes []uint64) {
		c := claim("e", channels...)
		j := judgement{a: a, c: &c, wide: new(room)}
		for _, k := range j.channelKeys() {
			hashes = append(hashes, k.hash)
			if hash := maphash.String(a.seed, channels[k.index]); hash != k.hash {
				t.Fatalf("%v: key %+v is of another channel", channels, k)
			}
		}
		return hashes
	}
	want := keys("a", "b", "c", "d", "e")
	for _, other := range [][]string{{"e", "d", "c", "b", "a"}, {"c", "a", "e", "b", "d"}, {"b", "b", "a", "e", "c", "d", "a"}} {
		if got := keys(other...); !slices.Equal(got, want) || !slices.IsSorted(got) {
			t.Fatalf("%v: %v, want %v", other, got, want)
		}
	}
}

func TestManyChannelsAndManyRates(t *testing.T) {
	rates := []Rate{}
	for i := range 12 {
		rates = append(rates, Rate{PerSecond: 0.001, Burst: 3 + i}, Rate{PerSecond: 0.001, Burst: 3 + i, Per: PerChannel})
	}
	a := newApp(t, Policy{Rules: []Rule{normal(Rule{Rates: rates})}, ChannelRate: &Rate{PerSecond: 1, Burst: 100}}, nil, nil)
	var hundred []string
	for i := range 100 {
		hundred = append(hundred, "channel-"+strings.Repeat("x", i))
	}
	for _, channels := range [][]string{hundred, hundred[:1], hundred[50:60]} {
		wantVerdict(t, ask(a, at(0), claim("e", channels...)), Sent, NoReason)
	}
	if v := ask(a, at(0), claim("e", hundred[3:]...)); v.Outcome != Throttled {
		t.Fatal(v)
	}
}

func TestARefusedPublishLeavesNoRecord(t *testing.T) {
	l := newLedger(t, plan(10))
	a := newApp(t, Policy{Rules: []Rule{normal(Rule{Dedupe: time.Minute, Rates: []Rate{{PerSecond: 1, Burst: 1}}})}}, l, nil)
	wantVerdict(t, ask(a, at(0), claim("e", "c").saying(1)), Sent, NoReason)
	wantVerdict(t, ask(a, at(0), claim("e", "c").saying(2)), Throttled, RuleRate)
	wantVerdict(t, ask(a, at(time.Second), claim("e", "c").saying(2).costing(50)), OverBudget, PlanSpent)
	wantVerdict(t, ask(a, at(2*time.Second), claim("e", "c").saying(2)), Sent, NoReason)
	wantVerdict(t, ask(a, at(2*time.Second), claim("e", "c").saying(2)), Deduplicated, Duplicate)
}

func TestWhatADuplicateIs(t *testing.T) {
	a := newApp(t, Policy{Rules: []Rule{normal(Rule{Dedupe: time.Minute})}}, nil, nil)
	ask(a, at(0), claim("e", "a", "b").saying(1))
	for _, c := range []struct {
		what string
		c    Claim
		dup  bool
	}{
		{"the same", claim("e", "a", "b").saying(1), true},
		{"channels in another order", claim("e", "b", "a").saying(1), true},
		{"one channel less", claim("e", "a").saying(1), false},
		{"one channel more", claim("e", "a", "b", "c").saying(1), false},
		{"a channel twice", claim("e", "a", "b", "b").saying(1), false},
		{"other data", claim("e", "a", "b").saying(2), false},
		{"no digest", claim("e", "a", "b"), false},
	} {
		if v := a.Admit(background, at(1), &c.c); (v.Outcome == Deduplicated) != c.dup {
			t.Errorf("%s: %v", c.what, v.Outcome)
		}
	}
}

func TestADuplicateUnderWaySharesTheFate(t *testing.T) {
	a := newApp(t, Policy{Rules: []Rule{normal(Rule{Dedupe: time.Minute})}}, nil, nil)
	api := a.Caller("api")
	for _, c := range []struct {
		fate Fate
		then Outcome
	}{{NotSent, Sent}, {Refused, Sent}, {Unknown, Sent}, {Delivered, Deduplicated}} {
		first, second := claim("e", "c").by(api).saying(7), claim("e", "c").by(api).saying(7)
		v1 := a.Admit(background, at(0), &first)
		v2 := a.Admit(background, at(0), &second)
		if v1.Outcome != Sent || v2.Outcome != Deduplicated || v2.Flight == nil {
			t.Fatalf("%v: %+v, %+v", c.fate, v1, v2)
		}
		a.Done(at(0), &first, &v1, c.fate, 1)
		if got := fateOf(background, v2.Flight); got != c.fate {
			t.Fatalf("waited for %v, got %v", c.fate, got)
		}
		if c.fate != Delivered {
			v2 = a.Admit(background, at(0), &second)
		}
		if v2.Outcome != c.then {
			t.Fatalf("%v: then %v, want %v", c.fate, v2.Outcome, c.then)
		}
		a.Done(at(0), &second, &v2, NotSent, 0)
	}
	s := api.Stats(at(0))
	if s.Outcomes[Sent] != 1 || s.Outcomes[Deduplicated] != 1 || s.Refused != 1 || s.Outcomes[Unavailable] != 5 {
		t.Fatalf("%+v", s)
	}
}

func TestBrake(t *testing.T) {
	l := newLedger(t, plan(1000))
	a := newApp(t, Policy{Rules: []Rule{{Match: Match{Event: []string{"alarm"}}, Priority: quota.Critical}}}, l, nil)
	pull := func(b *quota.Brake) {
		t.Helper()
		if err := l.SetBrake(background, at(0), b); err != nil {
			t.Fatal(err)
		}
	}
	pull(&quota.Brake{Allow: "critical", Reason: "x", Until: at(time.Hour)})
	v := ask(a, at(15*time.Minute), claim("e", "c"))
	wantVerdict(t, v, Braked, BrakePulled)
	if v.RetryAfter != 45*time.Minute {
		t.Fatal(v.RetryAfter)
	}
	wantVerdict(t, ask(a, at(0), claim("alarm", "c")), Sent, NoReason)
	wantVerdict(t, ask(a, at(time.Hour), claim("e", "c")), Sent, NoReason)
	pull(&quota.Brake{Allow: "none", Reason: "x"})
	v = ask(a, at(0), claim("alarm", "c"))
	wantVerdict(t, v, Braked, BrakePulled)
	if v.RetryAfter != 0 {
		t.Fatal("a brake without an end has no time to retry", v.RetryAfter)
	}
	pull(nil)
	wantVerdict(t, ask(a, at(0), claim("e", "c")), Sent, NoReason)
}

func TestBudget(t *testing.T) {
	cfg := plan(1000)
	cfg.Floors = [quota.Priorities]float64{quota.Critical: 0.1}
	cfg.Shares = map[string]float64{"api": 0.2}
	l := newLedger(t, cfg)
	a := newApp(t, Policy{
		Callers: []CallerPolicy{{Name: "api", Share: 0.2}},
		Rules:   []Rule{{Match: Match{Event: []string{"alarm"}}, Priority: quota.Critical, Answer: AnswerOK}},
	}, l, nil)
	api := a.Caller("api")
	wantVerdict(t, ask(a, at(0), claim("e", "c").by(api).costing(200)), Sent, NoReason)
	v := ask(a, at(0), claim("e", "c").by(api).costing(1))
	wantVerdict(t, v, OverBudget, ShareSpent)
	if v.RetryAfter != 15*time.Hour {
		t.Fatalf("%v until 00:00 UTC", v.RetryAfter)
	}
	wantVerdict(t, ask(a, at(0), claim("e", "c").costing(700)), Sent, NoReason)
	wantVerdict(t, ask(a, at(0), claim("e", "c").costing(1)), OverBudget, FloorReserved)
	v = ask(a, at(0), claim("alarm", "c").costing(100))
	wantVerdict(t, v, Sent, NoReason)
	v = ask(a, at(0), claim("alarm", "c").costing(1))
	wantVerdict(t, v, OverBudget, PlanSpent)
	if v.Answer != AnswerOK || v.Rule.Priority() != quota.Critical {
		t.Fatalf("%+v", v)
	}
	wantVerdict(t, ask(a, at(15*time.Hour), claim("e", "c").by(api)), Sent, NoReason)
	if s := api.Stats(at(15 * time.Hour)); s.MessagesToday != 1 || s.Outcomes[Sent] != 2 || s.Outcomes[OverBudget] != 1 {
		t.Fatalf("%+v", s)
	}
}

// What a publish costs in the end, by its fate.
func TestSettling(t *testing.T) {
	for _, c := range []struct {
		fate         Fate
		actual, want int64
	}{{Delivered, 7, 7}, {Delivered, 15, 15}, {Delivered, 0, 0}, {NotSent, 7, 0}, {Refused, 1, 1}, {Refused, 0, 0}, {Unknown, 0, 10}} {
		l := newLedger(t, plan(1000))
		a := newApp(t, Policy{}, l, nil)
		api := a.Caller("api")
		cl := claim("e", "c").by(api).costing(10)
		v := a.Admit(background, t0, &cl)
		a.Done(t0, &cl, &v, c.fate, c.actual)
		if used, _ := l.Used(t0); used != c.want {
			t.Errorf("%v, %d: %d used, want %d", c.fate, c.actual, used, c.want)
		}
		if got := api.Stats(t0).MessagesToday; got != c.want {
			t.Errorf("%v, %d: %d by the caller's count, want %d", c.fate, c.actual, got, c.want)
		}
	}
}

// Pusher says that the account is spent; a probe finds out that it is open again.
func TestExhaustedAndProbed(t *testing.T) {
	l := newLedger(t, plan(1000))
	b := newBreaker(t, BreakerConfig{Probe: time.Minute}, nil)
	a := newApp(t, Policy{}, l, b)
	if err := l.Exhaust(background, at(0), "quota exceeded"); err != nil {
		t.Fatal(err)
	}
	v := ask(a, at(0), claim("e", "c"))
	wantVerdict(t, v, OverBudget, Exhausted)
	if b.State(at(0)).State != Open || v.RetryAfter != time.Minute {
		t.Fatal(b.State(at(0)), v.RetryAfter)
	}
	wantVerdict(t, ask(a, at(59*time.Second), claim("e", "c")), OverBudget, Exhausted)

	probe := claim("e", "c")
	v = a.Admit(background, at(time.Minute), &probe)
	wantVerdict(t, v, Sent, NoReason)
	if !v.Probe || b.State(at(time.Minute)).State != HalfOpen {
		t.Fatalf("%+v", v)
	}
	wantVerdict(t, ask(a, at(time.Minute), claim("e", "c")), OverBudget, Exhausted)
	a.Done(at(time.Minute), &probe, &v, Refused, 0)
	if b.State(at(time.Minute)).State != Open {
		t.Fatal(b.State(at(time.Minute)))
	}

	v = a.Admit(background, at(2*time.Minute), &probe)
	a.Done(at(2*time.Minute), &probe, &v, Delivered, 1)
	if !v.Probe || b.State(at(2*time.Minute)).State != Closed {
		t.Fatalf("%+v, %v", v, b.State(at(2*time.Minute)))
	}
	// The border has to tell the ledger; until then the account is closed.
	wantVerdict(t, ask(a, at(2*time.Minute), claim("e", "c")), OverBudget, Exhausted)
	if err := l.Reopen(background, at(2*time.Minute), "probe accepted"); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, ask(a, at(2*time.Minute), claim("e", "c")), Sent, NoReason)
	if b.State(at(2*time.Minute)).State != Closed {
		t.Fatal("reopened by the ledger, yet", b.State(at(2*time.Minute)))
	}
}

// The border trips the breaker before the ledger has been told: nothing slips through meanwhile.
func TestTrippedBeforeTheLedgerKnows(t *testing.T) {
	l := newLedger(t, plan(1000))
	b := newBreaker(t, BreakerConfig{Probe: time.Minute}, nil)
	a := newApp(t, Policy{}, l, b)
	b.Trip(at(0), "quota exceeded")
	for range 5 {
		wantVerdict(t, ask(a, at(time.Second), claim("e", "c").costing(700)), OverBudget, BreakerOpen)
	}
	// What those had reserved was given back.
	if v := ask(a, at(time.Minute), claim("e", "c").costing(700)); !v.Probe || v.Outcome != Sent {
		t.Fatalf("%+v", v)
	}
	wantVerdict(t, ask(a, at(time.Minute), claim("e", "c")), Sent, NoReason)
}

func TestStoreLost(t *testing.T) {
	cfg := plan(1000)
	cfg.OnStoreLoss = quota.LossClosed
	cfg.Wait = -1
	l, st := newLedgerOn(t, cfg)
	a := newApp(t, Policy{}, l, nil)
	st.Close()
	if err := l.Beat(background, at(0)); err == nil {
		t.Fatal("the store still answers")
	}
	v := ask(a, at(0), claim("e", "c"))
	wantVerdict(t, v, Unavailable, StoreLost)
	if v.RetryAfter <= 0 {
		t.Fatal(v.RetryAfter)
	}
}

func TestCounters(t *testing.T) {
	a := newApp(t, Policy{
		Callers: []CallerPolicy{{Name: "api", Rate: &Rate{PerSecond: 1, Burst: 60}}},
		Rules:   []Rule{normal(Rule{Name: "news", Match: Match{Event: []string{"news"}}})},
	}, nil, nil)
	api := a.Caller("api")
	for range 90 {
		ask(a, at(0), claim("news", "c").by(api).costing(3))
	}
	s := api.Stats(at(30 * time.Second))
	if s.Name != "api" || s.Rate1m != 1.5 || s.MessagesToday != 180 || s.Outcomes[Sent] != 60 || s.Outcomes[Throttled] != 30 {
		t.Fatalf("%+v", s)
	}
	if r := api.Stats(at(time.Minute)).Rate1m; r != 0 {
		t.Fatalf("after a minute still %v a second", r)
	}
	if n := api.Stats(at(24 * time.Hour)).MessagesToday; n != 0 {
		t.Fatalf("yesterday's %d messages are counted today", n)
	}
	r := a.Rules()[0].Stats()
	if r.Name != "news" || r.Matched != 90 || r.Outcomes[Sent] != 60 || r.Outcomes[Throttled] != 30 {
		t.Fatalf("%+v", r)
	}
	// What the border learned later is what is counted.
	c := claim("news", "c").by(api)
	v := a.Admit(background, at(time.Hour), &c)
	v.Outcome = OverBudget
	a.Done(at(time.Hour), &c, &v, Refused, 0)
	if s := api.Stats(at(time.Hour)); s.Outcomes[OverBudget] != 1 || s.Refused != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestRateAndDayOverTime(t *testing.T) {
	var r minuteRate
	for s := range 300 {
		for range 10 {
			r.add(at(time.Duration(s) * time.Second))
		}
	}
	if got := r.perSecond(at(299 * time.Second)); got != 10 {
		t.Fatalf("%v a second, want 10", got)
	}
	if got := r.perSecond(at(329 * time.Second)); got != 5 {
		t.Fatalf("%v a second, want 5", got)
	}
	r.add(at(64 * time.Second)) // late: its slot belongs to another second by now
	if got := r.perSecond(at(329 * time.Second)); got > 5+2.0/rateWindow {
		t.Fatalf("%v a second", got)
	}
	var d dayCount
	d.add(at(0), 5)
	d.add(at(0), -3)
	d.add(at(24*time.Hour), 7)
	d.add(at(0), 11) // settled late: yesterday's
	if got := d.get(at(24 * time.Hour)); got != 7 {
		t.Fatalf("%d today, want 7", got)
	}
}

func TestCallersAreBounded(t *testing.T) {
	a := newApp(t, Policy{Callers: []CallerPolicy{{Name: "api"}}}, nil, nil)
	for i := range MaxUnnamedCallers + 100 {
		a.Caller("peer-" + strings.Repeat("x", i))
	}
	if c := a.Caller("one more"); c.Name() != OtherCallers || a.Caller("another") != c {
		t.Fatalf("%q", c.Name())
	}
	if n := len(a.Callers()); n != MaxUnnamedCallers+2 || !a.Memory().UnnamedOthers {
		t.Fatalf("%d callers", n)
	}
	if a.Caller("api") != a.Callers()[0] {
		t.Fatal("a named caller was lost")
	}
	name := []byte("peer")
	c := a.Caller(string(name))
	if (*Caller)(nil).Name() != "" || c == nil {
		t.Fatal()
	}
}

func TestMemoryIsReported(t *testing.T) {
	a := newApp(t, Policy{MaxKeys: 1, ChannelRate: &Rate{PerSecond: 0.0001, Burst: 2}, Rules: []Rule{normal(Rule{Dedupe: time.Hour})}}, nil, nil)
	for i := range 20_000 {
		ask(a, at(0), claim("e", "c"+strings.Repeat("y", i%100)+string(rune('a'+i%26))).saying(uint64(i)*0x9e3779b97f4a7c15+1))
	}
	m := a.Memory()
	if m.Buckets > shardsNum*ways || m.Buckets < ways || m.BucketsLost == 0 || m.DigestsLost == 0 || m.UnnamedOthers {
		t.Fatalf("%+v", m)
	}
}

func TestPolicyMistakesAreAllNamed(t *testing.T) {
	_, err := New(Policy{
		App: "1234", MaxKeys: -1,
		AppRate: &Rate{PerSecond: -1},
		Callers: []CallerPolicy{{Name: ""}, {Name: "api", Rate: &Rate{}}, {Name: "api"}},
		Rules: []Rule{
			{Name: "bad", Match: Match{Event: []string{""}}, Priority: 7, Dedupe: 25 * time.Hour, Conflate: -1, Rates: []Rate{{PerSecond: 1, Burst: -1}, {PerSecond: 1, Per: 9}}},
			{Dedupe: time.Nanosecond},
		},
	}, nil, nil)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"app 1234", "max keys", "rate of -1", "a caller has no name", "rate of 0", `caller "api" is there twice`,
		`rule "bad"`, "empty pattern", "priority 7", "dedupe of 25h", "conflate", "burst of -1", "per 9", `rule "rule 2"`, "whole milliseconds",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
	if errors.Unwrap(err) == nil {
		t.Error("not wrapped")
	}
}
