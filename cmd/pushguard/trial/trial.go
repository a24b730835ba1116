package trial

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/pushguard/pushguard/limiter"
)

// Question is one rule to be tried.
type Question struct {
	App    string
	Policy limiter.Policy // in force
	Rule   limiter.Rule
	// At is the rule's place among Policy.Rules; Instead: it replaces the one
	// that is there, else it goes before it.
	At      int
	Instead bool
}

// Answer is what the rule would have done. Counts are publishes of this replica;
// where Sampled is above 1 they are estimates, and Error is the half-width of
// their 95 % interval. Money is in messages, as the publishes were priced.
type Answer struct {
	From      time.Time        `json:"from"`
	Until     time.Time        `json:"until"`
	Publishes Estimate         `json:"publishes"`
	Sampled   int              `json:"sampled"` // one in so many channels was remembered; 1: all
	Matched   Estimate         `json:"matched"` // by the rule
	Before    map[string]int64 `json:"before"`  // outcomes by the rules in force
	After     map[string]int64 `json:"after"`   // outcomes with the rule
	// Refused is how many more would have been refused, Spared how many messages
	// fewer would have been spent; below zero: the other way round.
	Refused Estimate  `json:"refused"`
	Spared  Estimate  `json:"spared"`
	Spent   int64     `json:"spent"` // messages, by the rules in force
	Touched []Touched `json:"touched"`
	Notes   []string  `json:"notes"`
}

// Estimate is a count and how far from the truth it may be.
type Estimate struct {
	Count int64 `json:"count"`
	Error int64 `json:"error"`
}

// Touched are publishes that would have met something else.
type Touched struct {
	Caller string `json:"caller"`
	Event  string `json:"event"`
	Was    string `json:"was"`
	Is     string `json:"is"`
	Count  int64  `json:"count"`
}

const (
	mostPublishes = 1_000_000 // that one trial judges, twice
	mostTouched   = 12
)

// ErrNothing says that there is nothing to try a rule on.
var ErrNothing = errors.New("nothing was published in the last ten minutes that is remembered, so there is nothing to try the rule on")

// Try takes what was published in the ten minutes before now through the rules
// in force, and through them with the question's rule. Both begin with full
// buckets and empty windows. Budget, brake, breaker and containment are left
// out: they depend on the hour, not on the rule.
//
// A second's publishes of one entry are spread evenly over it. Where only one in
// k channels was remembered, buckets that channels share are made k times
// smaller, and counts are multiplied by k.
func (h *History) Try(ctx context.Context, now time.Time, q Question) (Answer, error) {
	until := now.Unix() - 1 // this second is not over
	from := until - int64(Window/time.Second)
	got := h.take(q.App, from, until)
	if len(got.entries) == 0 {
		return Answer{}, ErrNothing
	}
	var notes []string
	total := int64(0)
	for i, e := range slices.Backward(got.entries) {
		if total += int64(e.n); total > mostPublishes {
			got.from = e.second
			got.entries = slices.DeleteFunc(got.entries[i:], func(e entry) bool { return e.second <= got.from })
			break
		}
	}
	if len(got.entries) == 0 {
		return Answer{}, fmt.Errorf("more than %d publishes in one second are remembered: too many for a trial", mostPublishes)
	}
	if first := got.entries[0].second; got.from > from && first-from > 5 {
		notes = append(notes, fmt.Sprintf("So much was published that only the newest %s are remembered whole.", (time.Duration(until-got.from)*time.Second).String()))
	}
	k := 1 << got.level
	if k > 1 {
		notes = append(notes, fmt.Sprintf("The publishes of one in %d channels are remembered; counts are multiplied by %d, and rates that channels share were made as many times smaller.", k, k))
	}
	before, after, err := policies(q, k)
	if err != nil {
		return Answer{}, err
	}
	if q.Policy.Mode == limiter.Observe {
		notes = append(notes, "The app is in mode observe; both columns are as if it enforced.")
	}
	if q.Rule.Mode == limiter.Observe {
		notes = append(notes, "The rule says mode: observe; it was tried as if it enforced.")
	}
	for _, rule := range append(slices.Clone(q.Policy.Rules), q.Rule) {
		if rule.ConflateKey != "" || rule.SkipVacant {
			notes = append(notes, "What conflates by a part of the payload, or skips empty channels, cannot be told: neither payloads nor subscribers are remembered. It counts as sent.")
			break
		}
	}
	notes = append(notes, "Tried with full buckets and empty windows, on this replica's publishes; budget, brake, breaker and containment are left out.")
	r := run{k: int64(k), answer: Answer{
		From: time.Unix(got.entries[0].second, 0).UTC(), Until: time.Unix(until+1, 0).UTC(), Sampled: k,
		Before: map[string]int64{}, After: map[string]int64{}, Touched: []Touched{}, Notes: notes,
	}, touched: map[Touched]int64{}}
	r.before.name, r.after.name = "before", "after"
	if r.before.judge, err = limiter.New(before, nil, nil); err != nil {
		return Answer{}, err
	}
	if r.after.judge, err = limiter.New(after, nil, nil); err != nil {
		return Answer{}, err
	}
	if err := r.all(ctx, got.entries, q.At); err != nil {
		return Answer{}, err
	}
	return r.finish(), nil
}

// policies are the rules in force, and those with the question's.
func policies(q Question, k int) (before, after limiter.Policy, err error) {
	if q.At < 0 || q.At > len(q.Policy.Rules) || (q.Instead && q.At == len(q.Policy.Rules)) {
		return before, after, fmt.Errorf("place %d: the app has %d rules", q.At, len(q.Policy.Rules))
	}
	before = q.Policy
	before.Mode, before.MaxKeys = limiter.Enforce, 1<<16
	// A window of the store is one of this replica's publishes here.
	before.Rules = slices.Clone(before.Rules)
	for i := range before.Rules {
		before.Rules[i].DedupeScope = limiter.ScopeReplica
	}
	after = before
	rule := q.Rule
	rule.DedupeScope = limiter.ScopeReplica
	rule.Mode = limiter.Enforce
	after.Rules = slices.Clone(before.Rules)
	if q.Instead {
		after.Rules[q.At] = rule
	} else {
		after.Rules = slices.Insert(after.Rules, q.At, rule)
	}
	return thinner(before, k), thinner(after, k), nil
}

// thinner makes the buckets that channels share k times smaller.
func thinner(p limiter.Policy, k int) limiter.Policy {
	if k == 1 {
		return p
	}
	one := func(r limiter.Rate) limiter.Rate {
		if r.Per == limiter.PerChannel {
			return r
		}
		if r.Burst == 0 {
			r.Burst = max(1, int(math.Ceil(r.PerSecond)))
		}
		r.PerSecond, r.Burst = r.PerSecond/float64(k), max(1, r.Burst/k)
		return r
	}
	if p.AppRate != nil {
		r := one(*p.AppRate)
		p.AppRate = &r
	}
	p.Callers = slices.Clone(p.Callers)
	for i := range p.Callers {
		if c := &p.Callers[i]; c.Rate != nil {
			r := one(*c.Rate)
			c.Rate = &r
		}
	}
	p.Rules = slices.Clone(p.Rules)
	for i := range p.Rules {
		p.Rules[i].Rates = slices.Clone(p.Rules[i].Rates)
		for j := range p.Rules[i].Rates {
			p.Rules[i].Rates[j] = one(p.Rules[i].Rates[j])
		}
	}
	return p
}

// side is one of the two judges.
type side struct {
	name     string
	judge    *limiter.App
	outcomes [limiter.Outcomes]int64
	held     map[heldKey]int64 // of conflated: when the newest goes out, and its price
}

type heldKey struct {
	event, channels string
	due             int64
}

// group is one part of the channels, so that the spread between the parts tells
// how good the estimate is.
type group struct{ publishes, matched, refused, spared int64 }

type run struct {
	k             int64
	answer        Answer
	before, after side
	groups        [shards]group
	touched       map[Touched]int64
}

type one struct {
	at time.Time
	e  *entry
	i  int32
}

func (r *run) all(ctx context.Context, entries []entry, at int) error {
	tried := r.after.judge.Rules()[at]
	var second []one
	for i := 0; i < len(entries); {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("the trial took too long and was given up: %w", err)
		}
		second = second[:0]
		s := entries[i].second
		for ; i < len(entries) && entries[i].second == s; i++ {
			e := &entries[i]
			for n := range e.n {
				second = append(second, one{time.Unix(s, (int64(n)*2+1)*int64(time.Second)/(2*int64(e.n))), e, n})
			}
		}
		slices.SortStableFunc(second, func(a, b one) int { return a.at.Compare(b.at) })
		for _, o := range second {
			r.publish(ctx, o, tried)
		}
	}
	return nil
}

func (r *run) publish(ctx context.Context, o one, tried *limiter.CompiledRule) {
	e := o.e
	g := &r.groups[e.channel>>60]
	cost := e.cost / int64(e.n)
	if int64(o.i) < e.cost%int64(e.n) {
		cost++
	}
	digest := [2]uint64{e.payload, e.channel}
	if e.distinct {
		digest[0] ^= uint64(o.i+1) * 0x9e3779b97f4a7c15
	}
	g.publishes++
	was, paidBefore, _ := r.before.one(ctx, o.at, e, digest, cost)
	is, paidAfter, rule := r.after.one(ctx, o.at, e, digest, cost)
	if rule == tried {
		g.matched++
	}
	g.refused += refused(is) - refused(was)
	g.spared += paidBefore - paidAfter
	r.answer.Spent += paidBefore
	if was != is {
		r.touched[Touched{Caller: e.caller, Event: e.event, Was: was.String(), Is: is.String()}]++
	}
}

func refused(o limiter.Outcome) int64 {
	if o.Refuses() {
		return 1
	}
	return 0
}

// one judges one publish, and says what it cost.
func (s *side) one(ctx context.Context, now time.Time, e *entry, digest [2]uint64, cost int64) (limiter.Outcome, int64, *limiter.CompiledRule) {
	c := limiter.Claim{Caller: s.judge.Caller(e.caller), Event: e.event, Channels: e.channels, Digest: digest, Cost: cost}
	v := s.judge.Admit(ctx, now, &c)
	paid, fate := int64(0), limiter.NotSent
	switch v.Outcome {
	case limiter.Sent:
		paid, fate = cost, limiter.Delivered
	case limiter.Conflated:
		// The newest value goes out at the window's end: one price a window.
		if s.held == nil {
			s.held = map[heldKey]int64{}
		}
		k := heldKey{e.event, fmt.Sprint(e.channels), v.Due.UnixNano()}
		if _, again := s.held[k]; !again {
			paid = cost
			s.held[k] = cost
		}
	}
	s.judge.Done(now, &c, &v, fate, paid)
	s.outcomes[v.Outcome]++
	return v.Outcome, paid, v.Rule
}

func (r *run) finish() Answer {
	a := &r.answer
	pick := func(of func(group) int64) Estimate {
		var sum, mean, spread float64
		for _, g := range r.groups {
			sum += float64(of(g))
		}
		if r.k == 1 {
			return Estimate{Count: int64(sum)}
		}
		mean = sum / shards
		for _, g := range r.groups {
			d := float64(of(g)) - mean
			spread += d * d
		}
		// The variance of a sum of equal parts, and Student's t of 15 degrees.
		half := 2.13 * math.Sqrt(spread*shards/(shards-1)) * float64(r.k)
		return Estimate{Count: int64(sum) * r.k, Error: int64(math.Ceil(half))}
	}
	a.Publishes = pick(func(g group) int64 { return g.publishes })
	a.Matched = pick(func(g group) int64 { return g.matched })
	a.Refused = pick(func(g group) int64 { return g.refused })
	a.Spared = pick(func(g group) int64 { return g.spared })
	a.Spent *= r.k
	for o := range limiter.Outcome(limiter.Outcomes) {
		if n := r.before.outcomes[o]; n > 0 {
			a.Before[o.String()] = n * r.k
		}
		if n := r.after.outcomes[o]; n > 0 {
			a.After[o.String()] = n * r.k
		}
	}
	for t, n := range r.touched {
		t.Count = n * r.k
		a.Touched = append(a.Touched, t)
	}
	slices.SortFunc(a.Touched, func(x, y Touched) int {
		return cmp.Or(cmp.Compare(y.Count, x.Count), cmp.Compare(x.Caller, y.Caller), cmp.Compare(x.Event, y.Event), cmp.Compare(x.Is, y.Is), cmp.Compare(x.Was, y.Was))
	})
	if len(a.Touched) > mostTouched {
		a.Touched = a.Touched[:mostTouched]
	}
	return *a
}
