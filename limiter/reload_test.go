package limiter

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func slow(burst int, per Per) Rate { return Rate{PerSecond: 0.001, Burst: burst, Per: per} }

func TestReloadKeepsWhatIsTheSame(t *testing.T) {
	one := slow(1, PerApp)
	base := func() Policy {
		return Policy{
			Callers: []CallerPolicy{{Name: "api", Rate: &one}, {Name: "cron", Rate: &one}},
			Rules: []Rule{
				normal(Rule{Name: "a", Match: Match{Event: []string{"a"}}, Rates: []Rate{slow(1, PerChannel)}}),
				normal(Rule{Name: "b", Match: Match{Event: []string{"b"}}, Dedupe: time.Hour, Rates: []Rate{slow(1, PerApp), slow(5, PerChannel)}}),
			},
		}
	}
	for _, c := range []struct {
		what   string
		change func(*Policy)
		a, b   Outcome // what a second publish meets
	}{
		{"nothing", func(*Policy) {}, Throttled, Deduplicated},
		{"names and order of rules", func(p *Policy) {
			p.Rules[0].Name, p.Rules[1].Name = "x", "y"
			p.Rules[0], p.Rules[1] = p.Rules[1], p.Rules[0]
		}, Throttled, Deduplicated},
		{"a new rule before the others", func(p *Policy) {
			p.Rules = append([]Rule{normal(Rule{Match: Match{Event: []string{"z"}}})}, p.Rules...)
		}, Throttled, Deduplicated},
		{"dedupe off, rates the same", func(p *Policy) { p.Rules[1].Dedupe = 0 }, Throttled, Throttled},
		{"the order of a rule's rates", func(p *Policy) {
			r := p.Rules[1].Rates
			r[0], r[1] = r[1], r[0]
			p.Rules[1].Dedupe = 0
		}, Throttled, Throttled},
		{"another rate", func(p *Policy) { p.Rules[0].Rates[0].Burst = 2 }, Sent, Deduplicated},
		{"another match", func(p *Policy) { p.Rules[0].Match.Event = []string{"a*"} }, Sent, Deduplicated},
		{"rules gone", func(p *Policy) { p.Rules = nil }, Sent, Sent},
	} {
		a := newApp(t, base(), nil, nil)
		say := func(event string) Outcome { return ask(a, at(0), claim(event, "c").saying(uint64(event[0]))).Outcome }
		if say("a") != Sent || say("b") != Sent {
			t.Fatal("not set up")
		}
		api := a.Caller("api")
		wantVerdict(t, ask(a, at(0), claim("q", "c").by(api)), Sent, NoReason)
		p := base()
		c.change(&p)
		if err := a.Apply(p); err != nil {
			t.Fatal(err)
		}
		if got := say("a"); got != c.a {
			t.Errorf("%s: a is %v, want %v", c.what, got, c.a)
		}
		if got := say("b"); got != c.b {
			t.Errorf("%s: b is %v, want %v", c.what, got, c.b)
		}
		if a.Caller("api") != api || api.Stats(at(0)).Outcomes[Sent] != 1 {
			t.Errorf("%s: the caller's counters are lost", c.what)
		}
		wantVerdict(t, ask(a, at(0), claim("q", "c").by(api)), Throttled, CallerRate)
	}
}

func TestReloadKeepsCountersOfRules(t *testing.T) {
	p := Policy{Rules: []Rule{normal(Rule{Name: "a", Match: Match{Event: []string{"a"}}})}}
	a := newApp(t, p, nil, nil)
	ask(a, at(0), claim("a", "c"))
	ask(a, at(0), claim("b", "c"))
	p.Rules = []Rule{normal(Rule{Name: "new"}), normal(Rule{Name: "renamed", Match: Match{Event: []string{"a"}}})}
	if err := a.Apply(p); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{0, 1, 1} {
		if s := a.Rules()[i].Stats(); s.Matched != want {
			t.Errorf("%s: matched %d, want %d", s.Name, s.Matched, want)
		}
	}
}

func TestABadReloadChangesNothing(t *testing.T) {
	one := slow(1, PerApp)
	a := newApp(t, Policy{App: "1", Callers: []CallerPolicy{{Name: "api", Rate: &one}}}, nil, nil)
	api := a.Caller("api")
	wantVerdict(t, ask(a, at(0), claim("e", "c").by(api)), Sent, NoReason)
	for _, p := range []Policy{
		{Callers: []CallerPolicy{{Name: "new"}, {Name: "api", Rate: &Rate{PerSecond: -1}}}},
		{Rules: []Rule{{Dedupe: -1}}},
		{MaxKeys: 7},
	} {
		if err := a.Apply(p); err == nil {
			t.Fatalf("%+v is accepted", p)
		}
	}
	if a.Policy().App != "1" || len(a.Callers()) != 1 {
		t.Fatalf("%+v, %d callers", a.Policy(), len(a.Callers()))
	}
	wantVerdict(t, ask(a, at(0), claim("e", "c").by(api)), Throttled, CallerRate)
}

// A publish admitted under the old policy ends well under the new one.
func TestReloadWhilePublishesAreUnderWay(t *testing.T) {
	l := newLedger(t, plan(1000))
	p := Policy{Rules: []Rule{normal(Rule{Dedupe: time.Minute})}}
	a := newApp(t, p, l, nil)
	c := claim("e", "c").saying(1).costing(5)
	v := a.Admit(background, at(0), &c)
	p.Rules = append([]Rule{normal(Rule{Match: Match{Event: []string{"z"}}})}, p.Rules...)
	if err := a.Apply(p); err != nil {
		t.Fatal(err)
	}
	twin := claim("e", "c").saying(1)
	v2 := a.Admit(background, at(0), &twin)
	if v2.Flight == nil {
		t.Fatal("not seen under way")
	}
	a.Done(at(0), &c, &v, Delivered, 5)
	if fateOf(background, v2.Flight) != Delivered {
		t.Fatal("not told")
	}
	if used, _ := l.Used(at(0)); used != 5 {
		t.Fatal(used)
	}
}

// Two policies that name a rule's rates in another order lock their buckets in one order.
func TestRatesAreLockedInOneOrder(t *testing.T) {
	rates := []Rate{slow(1, PerChannel), slow(2, PerChannel), slow(3, PerChannel), slow(4, PerChannel)}
	ids := func(a *App) (ids []uint64) {
		for _, k := range a.Rules()[0].rates[PerChannel] {
			ids = append(ids, k.id)
		}
		return ids
	}
	a := newApp(t, Policy{Rules: []Rule{normal(Rule{Rates: rates})}}, nil, nil)
	want := ids(a)
	turned := slices.Clone(rates)
	slices.Reverse(turned)
	if err := a.Apply(Policy{Rules: []Rule{normal(Rule{Rates: turned})}}); err != nil {
		t.Fatal(err)
	}
	if got := ids(a); len(got) != 4 || !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
}

// Reloads, publishes to one and to many channels, and levers, all at once: for the race detector,
// and for deadlocks. No bucket gives more than it may meanwhile.
func TestEverythingAtOnce(t *testing.T) {
	l := newLedger(t, plan(1<<40))
	b := newBreaker(t, BreakerConfig{}, func(Transition) {})
	policy := func(i int) Policy {
		rates := []Rate{{PerSecond: 0.001, Burst: 100, Per: PerChannel}, {PerSecond: 1e6, Burst: 1e6, Per: PerChannel}, {PerSecond: 1e6, Burst: 1e6, Per: PerEvent}}
		if i%2 == 1 {
			rates[0], rates[1] = rates[1], rates[0]
		}
		p := Policy{
			Rules:   []Rule{normal(Rule{Dedupe: time.Millisecond, Rates: rates}), normal(Rule{Name: "trial", Mode: Observe, Dedupe: time.Second})},
			AppRate: &Rate{PerSecond: 1e6, Burst: 1e6}, MaxKeys: 1 << 12,
		}
		if i%2 == 1 {
			p.Rules[0], p.Rules[1] = p.Rules[1], p.Rules[0]
		}
		return p
	}
	a := newApp(t, policy(0), l, b)
	channels := []string{"a", "b", "c", "d", "e", "f"}
	var sent [6]int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			api := a.Caller(string(rune('k' + g)))
			for i := range 1500 {
				lo := (g + i) % 6
				hi := min(6, lo+1+i%4)
				to := slices.Clone(channels[lo:hi])
				if g%2 == 1 {
					slices.Reverse(to)
				}
				c := claim("e", to...).by(api).saying(uint64(i%50 + 1))
				now := at(time.Duration(i-g*3) * time.Microsecond)
				v := a.Admit(background, now, &c)
				if v.Outcome == Sent {
					mu.Lock()
					for n := lo; n < hi; n++ {
						sent[n]++
					}
					mu.Unlock()
				}
				if v.Flight == nil {
					a.Done(now, &c, &v, Fate(i%4), 1)
				}
			}
		})
	}
	wg.Go(func() {
		for i := range 100 {
			if err := a.Apply(policy(i)); err != nil {
				t.Error(err)
			}
			a.SetContainment(func(time.Time, *Claim) bool { return true })
			a.Memory()
			for _, c := range a.Callers() {
				c.Stats(at(0))
			}
			a.Rules()[0].Stats()
			b.State(at(0))
			a.SetContainment(nil)
		}
	})
	wg.Wait()
	for i, n := range sent {
		if n > 100 {
			t.Errorf("channel %s: %d tokens of 100", channels[i], n)
		}
		if n == 0 {
			t.Errorf("channel %s: nothing got through", channels[i])
		}
	}
}
