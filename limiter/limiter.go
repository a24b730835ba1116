// Package limiter judges publishes: may this one go to Pusher, now, and if not, why.
//
// It knows no HTTP, no JSON and no clock. Every decision takes the time as a parameter, so the
// live guard, a replay in virtual time and a test run the same code. A decision is a value, the
// Verdict; what the caller is told is made of it at the edge.
//
// # The order of judgement
//
// Admit asks these in turn, and the first that refuses decides:
//
//  1. rule: which rule the publish falls under; the first in file order that matches its event,
//     its caller and any of its channels.
//  2. brake: a person stopped everything, or everything that is not critical → Braked.
//  3. containment: the publish belongs to the culprit of an open incident and is over what is
//     left to it → Contained.
//     vacant: the rule says skip, and nobody is subscribed → Vacant.
//  4. dedupe: the same publish was delivered inside the rule's window, or is under way →
//     Deduplicated.
//     conflate: another publish of its event and channels went out inside the rule's window →
//     Conflated; the border holds it, and brings the newest again, Late, at the window's end.
//  5. buckets: of the caller, the event, the channels, the app; in each the app-wide default
//     before the rule's own → Throttled. A token is taken of all of them or of none.
//  6. quota breaker: what share of the plan is used, against the publish's priority → OverBudget.
//     twins: the rule says scope cluster, and another replica delivered the same publish inside the
//     rule's window or is sending it → Deduplicated. It is the only step that may ask the store, so
//     what the steps before refuse never costs a round trip.
//  7. budget: the messages are reserved from the ledger → OverBudget, or Unavailable when the
//     store is lost and the policy allows no more.
//
// It is cheapest first, with two exceptions. The brake and containment go before dedupe, so what a
// person stopped is never answered as delivered. Money comes last, so nothing is reserved for a
// publish that does not go out. A publish that is refused by 5 to 7 leaves nothing in 4, so a
// repeat of it is judged anew; and one refused by 6 or 7 has taken its tokens: it was an attempt. One
// that is judged again because the twin that it waited for failed is the same attempt still: what
// it passed of 3 and 5 it is not asked for twice.
//
// # Observe
//
// In mode observe decisions are made and counted, but not carried out: Outcome stays Sent and
// Would says what was decided. What really goes out is booked in the ledger as it is.
//
// For a whole app all of Admit observes. A caller's rate and share can observe by themselves. A
// rule that observes does not end the search for a rule: the publish is judged under the first
// rule that enforces, as if the observing one were not in the file, and beside that the observing
// rule's dedupe, rates and priority decide what they would have done, on buckets and windows of
// their own.
package limiter

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/dedupe"
)

// App judges the publishes of one Pusher app. All methods are safe for concurrent use. Admit and
// Done neither allocate nor lock anything that all publishes share, except: a key that is new to
// the buckets allocates its bucket, the first repeat of a publish under way its Flight, and the
// buckets that all share by their nature (of the app, of a rule) are locked one by one.
type App struct {
	seed     maphash.Seed
	seed2    maphash.Seed
	ledger   *quota.Ledger
	breaker  *Breaker
	policy   atomic.Pointer[policy]
	contain  atomic.Pointer[Containment]
	aims     atomic.Pointer[aims]
	twins    atomic.Pointer[dedupe.Claims]
	callers  callers
	buckets  *bucketTable
	window   *window
	bursts   *bursts
	maxKeys  int
	applying sync.Mutex
}

// Containment says whether a publish may pass although an incident is open. It is on the hot path
// and must not keep the claim.
type Containment func(now time.Time, c *Claim) (allowed bool)

// New makes an app. Either of ledger and breaker may be nil: then there is no budget, or no
// shedding. The ledger should know the shares of the callers already.
func New(p Policy, ledger *quota.Ledger, breaker *Breaker) (*App, error) {
	a := &App{
		seed:    maphash.MakeSeed(),
		seed2:   maphash.MakeSeed(),
		ledger:  ledger,
		breaker: breaker,
		maxKeys: maxKeys(p),
	}
	a.callers.init(a.seed)
	if a.maxKeys >= 0 && a.maxKeys <= maxMaxKeys {
		a.buckets = newBucketTable(a.maxKeys)
	}
	compiled, err := a.compile(p, nil)
	if err != nil {
		return nil, err
	}
	a.window = newWindow(a.maxKeys)
	a.bursts = newBursts(a.maxKeys)
	a.policy.Store(compiled)
	return a, nil
}

// Apply takes a new policy while running, all or nothing: on an error, which names every mistake,
// the old policy stays whole. Rates that are the same as before keep their buckets, rules whose
// match is the same their counters, and no delivered publish is forgotten. MaxKeys cannot change.
func (a *App) Apply(p Policy) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	compiled, err := a.compile(p, a.policy.Load())
	if err != nil {
		return err
	}
	a.policy.Store(compiled)
	return nil
}

// Policy is what the app is judged by at the moment. Its slices must not be changed.
func (a *App) Policy() Policy { return a.policy.Load().spec }

// SetContainment sets what is asked at step 3; nil contains nobody.
func (a *App) SetContainment(f Containment) {
	if f == nil {
		a.contain.Store(nil)
		return
	}
	a.contain.Store(&f)
}

// SetTwins sets what all replicas know of delivered publishes, for rules with ScopeCluster; with nil
// they are judged as ScopeReplica. The record must run.
func (a *App) SetTwins(t *dedupe.Claims) { a.twins.Store(t) }

// Caller finds the caller of that name, or makes it; it is never nil. Names that are not in the
// policy are bounded: see MaxUnnamedCallers. The name is copied if it is kept.
func (a *App) Caller(name string) *Caller { return a.callers.get(name, false) }

// Callers lists all callers known, those of the policy and those that came, oldest first.
func (a *App) Callers() []*Caller { return a.callers.list() }

// Rules lists the rules in force in file order, the built-in default last.
func (a *App) Rules() []*CompiledRule {
	p := a.policy.Load()
	return append(append([]*CompiledRule(nil), p.rules...), p.fallback)
}

// DefaultRule is the built-in rule for what matches none: normal, nothing limited.
func (a *App) DefaultRule() *CompiledRule { return a.policy.Load().fallback }

// Match finds the first rule in file order that enforces and matches; never nil.
func (a *App) Match(event string, channels []string, caller *Caller) *CompiledRule {
	p := a.policy.Load()
	return p.match(event, channels, caller.Name())
}

func (p *policy) match(event string, channels []string, caller string) *CompiledRule {
	for _, r := range p.rules {
		if r.spec.Mode == Enforce && r.matches(event, channels, caller) {
			return r
		}
	}
	return p.fallback
}

// observer finds the rule that observes this publish: the first of all that match, if it does
// observe.
func (p *policy) observer(c *Claim) *CompiledRule {
	for _, r := range p.rules {
		if r == c.Rule {
			return nil
		}
		if r.matches(c.Event, c.Channels, c.Caller.Name()) {
			if r.spec.Mode == Observe {
				return r
			}
			return nil
		}
	}
	return nil
}

// Memory says what the bounded tables hold and what they had to forget.
type Memory struct {
	Buckets       int   // keys with a bucket
	BucketsLost   int64 // buckets forgotten before they were full again: their keys got a fresh one
	DigestsLost   int64 // publishes forgotten inside their window: a duplicate may have gone out
	BurstsLost    int64 // publishes not conflated for want of room
	UnnamedOthers bool  // more callers came than get counters of their own
}

// Memory reads the counters; it visits every shard, so it is not for the hot path.
func (a *App) Memory() Memory {
	m := *a.callers.byName.Load()
	_, others := m[OtherCallers]
	return Memory{a.buckets.len(), a.buckets.lost.Load(), a.window.lost.Load(), a.bursts.lost.Load(), others}
}

// Admit judges one event at now, in the order that the package comment gives. Every Admit is
// followed by exactly one Done with the same claim, but for a verdict with a Flight that failed:
// see Flight. ctx bounds how long the ledger may wait for a lease to be refilled; a ctx that ends
// later changes nothing.
func (a *App) Admit(ctx context.Context, now time.Time, c *Claim) Verdict {
	var j judgement
	j.open(a, a.policy.Load(), c, now)
	outcome := j.judge()
	if j.record != nil {
		w := j.want()
		outcome = j.heard(j.record.Claim(now, w.ID, w.Window, w.Hold))
	}
	j.close(ctx, outcome)
	return j.v
}

// Done closes a claim: it settles the hold, remembers or forgets the publish, wakes those that
// wait for it, and counts. actual is what it cost in messages, looked at when the fate is
// Delivered or Refused. For a verdict that let nothing pass the fate does not matter. A border
// that learned why a publish did not go through may set v.Outcome before.
func (a *App) Done(now time.Time, c *Claim, v *Verdict, fate Fate, actual int64) {
	outcome := v.Outcome
	c.again = repeat{}
	if v.admitted {
		a.window.end(now, v.ticket, fate)
		a.window.end(now, v.shadow, fate)
		if v.twin.asked {
			a.settleTwin(now, c, v, fate == Delivered)
		}
		spent := a.settle(now, c, v, fate, actual)
		if v.Rule.quotas && !c.Late && !c.Refresh {
			a.requota(now, c, v.Rule, fate == Delivered || fate == Unknown, spent)
		}
		if v.Probe {
			a.breaker.probed(now, fate == Delivered)
		}
		if c.Caller != nil {
			c.Caller.today.add(now, spent)
			if c.Late && fate != NotSent {
				c.Caller.late.add(now, 1)
			}
		}
		if outcome == Sent && (fate == NotSent || fate == Unknown) {
			outcome = Unavailable
		}
		if v.began && fate == NotSent {
			a.bursts.end(v.burst)
		}
		if c.Late && fate != NotSent && v.Rule.conflates(c) {
			a.bursts.arrived(a.burstKey(c), c.HeldAt)
		}
	}
	if c.Refresh {
		return // the guard's own; the publish that it stands for was counted
	}
	refused := v.admitted && fate == Refused && outcome == Sent
	r := v.Rule.tally
	r.matched.Add(1)
	if !refused {
		r.outcomes[outcome].Add(1)
	}
	differs := v.admitted && v.Would != Sent
	if differs {
		r.would[v.Would].Add(1)
	}
	if c.Caller == nil {
		return
	}
	c.Caller.minute.add(now)
	if refused {
		c.Caller.refused.Add(1)
	} else {
		c.Caller.outcomes[outcome].Add(1)
	}
	if differs {
		c.Caller.would[v.Would].Add(1)
	}
}

// settle tells the ledger what the publish cost, and returns it.
func (a *App) settle(now time.Time, c *Claim, v *Verdict, fate Fate, actual int64) int64 {
	switch fate {
	case NotSent:
		actual = 0
	case Unknown:
		actual = max(v.Hold.Cost(), c.Cost)
	}
	switch {
	case a.ledger == nil:
	case actual == 0 && v.Hold.Cost() > 0:
		a.ledger.Refund(now, v.Hold)
	case actual > 0 || v.Hold.Cost() > 0:
		a.ledger.Settle(now, v.Hold, actual)
		a.ledger.Count(quota.SpentBy(v.Rule.spec.Priority), actual)
	}
	return actual
}
