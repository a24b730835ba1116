package limiter

import (
	"context"
	"hash/maphash"
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/dedupe"
)

// judgement is one Admit under way. It lives on the stack, and holds all that it needs by value so
// that it can.
type judgement struct {
	a      *App
	p      *policy
	caller *callerPolicy
	c      *Claim
	now    time.Time
	v      Verdict

	record *dedupe.Claims // not nil after judge: what is left of it is to ask the other replicas

	// The buckets that the publish needs a token of, locked, in the order in which they were asked.
	held  [few]*bucket
	heldN int
	wide  *room // not nil: they are here
}

// refuse notes why, and how long, and returns the outcome.
func (j *judgement) refuse(o Outcome, why Reason, retry time.Duration) Outcome {
	j.v.Reason, j.v.RetryAfter = why, retry
	return o
}

// would notes a decision that is not carried out, unless there is one already.
func (j *judgement) would(o Outcome, why Reason) {
	if j.v.Would == Sent {
		j.v.Would, j.v.Reason = o, why
	}
}

// open begins the judgement of a claim.
func (j *judgement) open(a *App, p *policy, c *Claim, now time.Time) {
	j.a, j.p, j.c, j.now = a, p, c, now
	if c.Rule == nil {
		c.Rule = p.match(c.Event, c.Channels, c.Caller.Name())
	}
	j.caller = p.caller(c.Caller)
	j.v.Rule, j.v.Answer, j.v.Channel = c.Rule, c.Rule.spec.Answer, -1
	if p.observing && c.Event != "" {
		j.shadow()
	}
}

// close is step 7, and what follows from the outcome.
func (j *judgement) close(ctx context.Context, outcome Outcome) {
	observe := j.p.spec.Mode == Observe
	if outcome == Sent || observe {
		outcome = j.pay(ctx, outcome)
	}
	switch {
	case outcome == Sent:
		j.v.admitted = true
	case observe:
		j.forget(&j.v.ticket)
		j.disclaim()
		j.v.Would = outcome
		j.v.admitted = true
	default:
		j.forget(&j.v.ticket)
		j.forget(&j.v.shadow)
		j.disclaim()
		if j.v.began {
			j.a.bursts.end(j.v.burst)
		}
		outcome = j.digested(outcome)
		j.v.Outcome, j.v.Would = outcome, outcome
	}
	j.c.again.judged = true
}

// judge is steps 2 to 6. If record is not nil afterwards, it is for the other replicas to say; see twins.
func (j *judgement) judge() Outcome {
	if j.c.Kind != KindRead { // which harms nobody, and is how people see what goes on
		if o := j.brake(j.c.Rule.spec.Priority); o != Sent {
			return o
		}
	}
	if j.a.ledger != nil {
		if set := j.a.ledger.CurrentAims(); set != nil {
			if o := j.aimedAt(set, j.c.Rule.spec.Priority); o != Sent {
				return o
			}
		}
	}
	if j.c.Rule.spec.Deny {
		return j.refuse(Braked, RuleDenies, 0)
	}
	if j.c.Refresh {
		return Sent
	}
	if j.c.Late {
		j.conflate(j.c.Rule)
		return j.level(j.c.Rule.spec.Priority)
	}
	if f := j.a.contain.Load(); f != nil && !j.c.again.judged && !(*f)(j.now, j.c) {
		return j.refuse(Contained, Culprit, time.Second)
	}
	if j.c.Vacant && j.c.Rule.spec.SkipVacant {
		return j.refuse(Vacant, NobodyThere, 0)
	}
	if !j.overtakes(j.c.Rule) {
		if o := j.dedupe(j.c.Rule, 0, &j.v.ticket, j.p.spec.Mode == Enforce); o != Sent {
			return o
		}
	}
	if o := j.conflate(j.c.Rule); o != Sent {
		return o
	}
	if o := j.buckets(j.c.Rule, true); o != Sent {
		return o
	}
	if o := j.level(j.c.Rule.spec.Priority); o != Sent {
		return o
	}
	j.record = j.twins()
	return Sent
}

// shadow is what the observing rule, if there is one, would have done.
func (j *judgement) shadow() {
	r := j.p.observer(j.c)
	if r == nil {
		return
	}
	o := j.brake(r.spec.Priority)
	if o == Sent && r.spec.Deny {
		o = j.refuse(Braked, RuleDenies, 0)
	}
	if o == Sent && j.c.Vacant && r.spec.SkipVacant {
		o = j.refuse(Vacant, NobodyThere, 0)
	}
	if o == Sent {
		o = j.dedupe(r, r.salt, &j.v.shadow, false)
	}
	if o == Sent {
		o = j.buckets(r, false)
	}
	if o == Sent {
		o = j.level(r.spec.Priority)
	}
	if o != Sent {
		j.forget(&j.v.shadow)
		j.v.Would = o
	}
	j.v.Channel, j.v.RetryAfter, j.v.Flight = -1, 0, nil
	if j.c.again.judged {
		return
	}
	r.tally.matched.Add(1)
	r.tally.would[o].Add(1)
}

// brake is step 2.
func (j *judgement) brake(p quota.Priority) Outcome {
	if j.a.ledger == nil {
		return Sent
	}
	b := j.a.ledger.CurrentBrake(j.now)
	if b == nil || b.Allow == "critical" && p == quota.Critical {
		return Sent
	}
	var retry time.Duration
	if !b.Until.IsZero() {
		retry = max(b.Until.Sub(j.now), time.Second)
	}
	return j.refuse(Braked, BrakePulled, retry)
}

// dedupe is step 4. Records of an observing rule are kept apart by its salt.
func (j *judgement) dedupe(r *CompiledRule, salt uint64, t *ticket, join bool) Outcome {
	if r.spec.Dedupe == 0 || j.c.Digest == [2]uint64{} {
		return Sent
	}
	k := j.a.identity(j.c)
	k.lo ^= salt
	var dup bool
	if *t, dup, j.v.Flight = j.a.window.begin(j.now, k, r.spec.Dedupe, join); dup {
		return j.refuse(Deduplicated, Duplicate, 0)
	}
	return Sent
}

// forget takes a publish that does not go out from the records.
func (j *judgement) forget(t *ticket) {
	if t.serial != 0 {
		j.a.window.end(j.now, *t, NotSent)
		*t = ticket{}
	}
}

// identity is what makes two publishes of an app the same: the digest and the channels, in any
// order. Sums, not exclusive or, so that a channel named twice does not vanish.
func (a *App) identity(c *Claim) dkey {
	var lo, hi uint64
	for _, name := range c.Channels {
		lo += maphash.String(a.seed, name)
		hi += maphash.String(a.seed2, name)
	}
	return dkey{lo: c.Digest[0] ^ lo, hi: c.Digest[1] ^ hi}
}

// level is step 6, for the breaker's levels by threshold. An opening by Pusher's word is looked
// at in pay, together with the ledger, which knows it too.
func (j *judgement) level(p quota.Priority) Outcome {
	if j.a.ledger == nil || j.a.breaker == nil {
		return Sent
	}
	used, plan := j.a.ledger.Used(j.now)
	ok, why := j.a.breaker.Allow(j.now, p, used, plan)
	if ok || why == BreakerOpen {
		return Sent
	}
	return j.refuse(OverBudget, why, untilReset(j.now))
}
