package limiter

import (
	"testing"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// An app that observes lets everything out and books it, and counts what it would have done: the
// same as what an app that enforces does with the same publishes.
func TestAnObservingAppDecidesTheSameAndChangesNothing(t *testing.T) {
	type turn struct {
		at     time.Duration
		event  string
		digest uint64
		cost   int64
	}
	turns := []turn{
		{0, "e", 1, 1}, {0, "e", 1, 1}, {0, "e", 2, 1}, {0, "e", 3, 1}, {0, "e", 2, 1},
		{time.Second, "e", 3, 1}, {2 * time.Second, "e", 4, 500}, {2 * time.Second, "e", 5, 1},
		{20 * time.Second, "e", 6, 300}, {30 * time.Second, "bulk", 7, 1}, {35 * time.Second, "e", 8, 1}, {40 * time.Second, "e", 7, 10_000},
	}
	run := func(mode Mode) (decided []Outcome, out int, used int64) {
		l := newLedger(t, plan(1000))
		a := newApp(t, Policy{
			Mode: mode,
			Rules: []Rule{
				{Match: Match{Event: []string{"bulk"}}, Priority: quota.Bulk},
				normal(Rule{Dedupe: 10 * time.Second, Rates: []Rate{{PerSecond: 1, Burst: 2}}}),
			},
		}, l, newBreaker(t, BreakerConfig{}, nil))
		api := a.Caller("api")
		var sent, would int64
		for _, s := range turns {
			v := ask(a, at(s.at), claim(s.event, "c").by(api).saying(s.digest).costing(s.cost))
			if v.Flight != nil {
				t.Fatal("waits")
			}
			if v.Outcome == Sent {
				out++
				sent++
			}
			if v.Would != Sent {
				would++
			}
			if mode == Observe && v.Outcome != Sent {
				t.Fatalf("%+v is carried out", v)
			}
			decided = append(decided, v.Would)
		}
		st := api.Stats(at(0))
		var counted int64
		for o := Sent + 1; o < Outcomes; o++ {
			counted += st.Would[o] + st.Outcomes[o]
		}
		if st.Outcomes[Sent] != sent || counted != would {
			t.Fatalf("%d sent and %d decided otherwise: %+v", sent, would, st)
		}
		used, _ = l.Used(at(40 * time.Second))
		return decided, out, used
	}
	// Once something has gone out that would not have, the plan is really fuller than it would be;
	// so the turn that makes the difference stands at the end.
	enforced, _, _ := run(Enforce)
	observed, out, used := run(Observe)
	for i := range enforced {
		if enforced[i] != observed[i] {
			t.Errorf("turn %d: enforced %v, observed %v", i, enforced[i], observed[i])
		}
	}
	if out != len(turns) {
		t.Errorf("%d of %d went out", out, len(turns))
	}
	var cost int64
	for _, s := range turns {
		cost += s.cost
	}
	if used != cost {
		t.Errorf("%d booked of %d that went out", used, cost)
	}
}

// A rule that observes is as if it were not in the file, but for what it counts.
func TestAnObservingRuleIsNotInTheWay(t *testing.T) {
	rules := []Rule{
		normal(Rule{Name: "trial", Match: Match{Event: []string{"news"}}, Mode: Observe, Dedupe: time.Minute, Rates: []Rate{{PerSecond: 0.001, Burst: 2}}}),
		normal(Rule{Name: "real", Match: Match{Event: []string{"news"}}, Rates: []Rate{{PerSecond: 0.001, Burst: 5}}}),
	}
	a := newApp(t, Policy{Rules: rules}, nil, nil)
	trial, real := a.Rules()[0], a.Rules()[1]
	if !real.WantsDigest() || !a.DefaultRule().WantsDigest() {
		t.Fatal("the observing rule needs digests")
	}
	for i, want := range []struct {
		digest uint64
		o, w   Outcome
		why    Reason
	}{
		{1, Sent, Sent, NoReason},
		{1, Sent, Deduplicated, Duplicate},
		{2, Sent, Sent, NoReason},
		{3, Sent, Throttled, RuleRate},
		{3, Sent, Throttled, RuleRate}, // it was not sent, as the trial sees it: no duplicate
		{4, Throttled, Throttled, RuleRate},
	} {
		c := claim("news", "c").saying(want.digest)
		v := ask(a, at(0), c)
		if v.Outcome != want.o || v.Would != want.w || v.Reason != want.why || v.Rule != real || v.Flight != nil {
			t.Fatalf("turn %d: %v, would %v (%v) by %s", i, v.Outcome, v.Would, v.Reason, v.Rule.Name())
		}
	}
	s := trial.Stats()
	if s.Mode != Observe || s.Matched != 6 || s.Would[Sent] != 2 || s.Would[Deduplicated] != 1 || s.Would[Throttled] != 3 {
		t.Fatalf("%+v", s)
	}
	if s := real.Stats(); s.Matched != 6 || s.Outcomes[Sent] != 5 || s.Outcomes[Throttled] != 1 {
		t.Fatalf("%+v", s)
	}
	// What matches the trial is judged by nothing else than what it would be without it.
	ask(a, at(0), claim("other", "c").saying(9))
	if trial.Stats().Matched != 6 {
		t.Fatal("the trial saw what it does not match")
	}
}

// What the trial would have sent, but another stage refused, is no twin of the next one.
func TestAnObservingRuleForgetsWhatDidNotGoOut(t *testing.T) {
	a := newApp(t, Policy{
		AppRate: &Rate{PerSecond: 1, Burst: 1},
		Rules:   []Rule{normal(Rule{Name: "trial", Mode: Observe, Dedupe: time.Minute})},
	}, nil, nil)
	wantVerdict(t, ask(a, at(0), claim("e", "c").saying(1)), Sent, NoReason)
	wantVerdict(t, ask(a, at(0), claim("e", "c").saying(2)), Throttled, AppRate)
	v := ask(a, at(time.Second), claim("e", "c").saying(2))
	if v.Outcome != Sent || v.Would != Sent {
		t.Fatalf("%v, would %v (%v)", v.Outcome, v.Would, v.Reason)
	}
	v = ask(a, at(2*time.Second), claim("e", "c").saying(2))
	if v.Outcome != Sent || v.Would != Deduplicated {
		t.Fatalf("%v, would %v (%v)", v.Outcome, v.Would, v.Reason)
	}
}

// The trial's records and those of a rule that enforces are kept apart: neither decides for the other.
func TestAnObservingRuleKeepsItsOwnRecords(t *testing.T) {
	a := newApp(t, Policy{Rules: []Rule{
		normal(Rule{Name: "trial", Mode: Observe, Dedupe: time.Minute, Match: Match{Event: []string{"e"}}}),
		normal(Rule{Name: "real", Dedupe: time.Second}),
	}}, nil, nil)
	for i, want := range []struct {
		at   time.Duration
		o, w Outcome
	}{{0, Sent, Sent}, {500 * time.Millisecond, Deduplicated, Deduplicated}, {time.Second, Sent, Deduplicated}} {
		v := ask(a, at(want.at), claim("e", "c").saying(1))
		if v.Outcome != want.o || v.Would != want.w || v.Flight != nil {
			t.Fatalf("turn %d: %v, would %v", i, v.Outcome, v.Would)
		}
	}
}

func TestAnObservingRulesPriority(t *testing.T) {
	l := newLedger(t, plan(1000))
	b := newBreaker(t, BreakerConfig{}, nil)
	a := newApp(t, Policy{Rules: []Rule{
		{Name: "first", Match: Match{Event: []string{"alarm"}}, Priority: quota.Critical},
		{Name: "trial", Priority: quota.Bulk, Mode: Observe},
	}}, l, b)
	if err := l.SetUsage(background, at(0), 850, "test", "story"); err != nil {
		t.Fatal(err)
	}
	v := ask(a, at(0), claim("e", "c"))
	if v.Outcome != Sent || v.Would != OverBudget || v.Reason != SheddingBulk || v.RetryAfter != 0 {
		t.Fatalf("%+v", v)
	}
	// A rule before it that enforces ends the search for observers too.
	if v := ask(a, at(0), claim("alarm", "c")); v.Would != Sent || v.Rule.Name() != "first" {
		t.Fatalf("%+v", v)
	}
}

func TestAnObservedCaller(t *testing.T) {
	cfg := plan(1000)
	cfg.Shares = map[string]float64{"api": 0.01}
	l := newLedger(t, cfg)
	a := newApp(t, Policy{
		Callers: []CallerPolicy{{Name: "api", Rate: &Rate{PerSecond: 0.001, Burst: 1}, Share: 0.01, Mode: Observe}},
		AppRate: &Rate{PerSecond: 0.001, Burst: 3},
	}, l, nil)
	api := a.Caller("api")
	for i, want := range []struct {
		cost int64
		o, w Outcome
		why  Reason
	}{
		{9, Sent, Sent, NoReason},
		{1, Sent, Throttled, CallerRate},
		{5, Sent, Throttled, CallerRate}, // over its share too; the first decision counts
		{1, Throttled, Throttled, AppRate},
	} {
		v := ask(a, at(0), claim("e", "c").by(api).costing(want.cost))
		if v.Outcome != want.o || v.Would != want.w || v.Reason != want.why {
			t.Fatalf("turn %d: %+v", i, v)
		}
	}
	if used, _ := l.Used(at(0)); used != 15 {
		t.Fatalf("%d booked of 15", used)
	}
	v := ask(a, at(time.Hour), claim("e", "c").by(api).costing(20))
	if v.Outcome != Sent || v.Would != OverBudget || v.Reason != ShareSpent {
		t.Fatalf("%+v", v)
	}
	if s := api.Stats(at(time.Hour)); s.Would[Throttled] != 2 || s.Would[OverBudget] != 1 || s.Outcomes[Throttled] != 1 {
		t.Fatalf("%+v", s)
	}
}
