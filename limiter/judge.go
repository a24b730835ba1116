package limiter

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/pushguard/pushguard/quota"
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

	record   *quota.Twins // not nil after judge: what is left of it is to ask the other replicas
	identity dkey         // of the claim, where its rule deduplicates; else zero
	channel  uint64       // hash of its only channel, where there is one

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

// expect begins to fetch what the judgement of a publish to one channel will look at.
func (j *judgement) expect() {
	r := j.c.Rule
	if r.spec.Dedupe != 0 && j.c.Digest != [2]uint64{} {
		j.identity = j.a.identity(j.c)
		j.a.window.expect(j.identity)
	}
	if len(j.c.Channels) != 1 {
		return
	}
	j.channel = maphash.String(j.a.seed, j.c.Channels[0])
	if j.p.channel != nil {
		j.a.buckets.expectBucket(j.p.channel.key(j.channel))
	}
	for _, k := range r.rates[PerChannel] {
		j.a.buckets.expectBucket(k.key(j.channel))
	}
}

// open begins the judgement of a claim.
func (j *judgement) open(a *App, p *policy, c *Claim, now time.Time) {
	j.a, j.p, j.c, j.now = a, p, c, now
	if c.Rule == nil {
		c.Rule = p.match(c.Event, c.Channels, c.Caller.Name())
		a.expect(p, c.Rule, c.Channels)
	}
	j.caller = p.caller(c.Caller)
	j.v.Rule, j.v.Answer, j.v.Channel = c.Rule, c.Rule.spec.Answer, -1
	j.expect()
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
	if o := j.brake(j.c.Rule.spec.Priority); o != Sent {
		return o
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
	k := j.identity
	if k == (dkey{}) { // the observing rule deduplicates, the other does not
		k = j.a.identity(j.c)
	}
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

// few is how many buckets and channels a publish may have without asking the pool for room.
const few = 8

// channelKey is a channel's hash and its place in the claim.
type channelKey struct {
	hash  uint64
	index int
}

// room is for publishes to several channels.
type room struct {
	held []*bucket
	keys []channelKey
}

var rooms = sync.Pool{New: func() any { return new(room) }}

// buckets is step 5: for a rule alone, or with what holds for the whole app. No bucket gives a
// token before all have been asked, so a refusal by one costs the others nothing. Who has paid is not asked again.
func (j *judgement) buckets(r *CompiledRule, all bool) Outcome {
	paid := &j.c.again.paid[0]
	if all {
		paid = &j.c.again.paid[1]
	}
	if *paid {
		if all && j.c.again.over {
			j.would(Throttled, j.caller.rate.reason)
		}
		return Sent
	}
	if len(j.c.Channels) > 1 {
		j.wide = rooms.Get().(*room)
	}
	o := j.gather(r, all)
	j.release(o == Sent)
	*paid = o == Sent
	if j.wide != nil {
		clear(j.wide.held)
		j.wide.held, j.wide.keys = j.wide.held[:0], j.wide.keys[:0]
		rooms.Put(j.wide)
		j.wide = nil
	}
	return o
}

// gather asks every bucket, in the order of judgement, which is also the order of locking: a
// bucket has the same place in it whatever rule or policy it is reached by.
func (j *judgement) gather(r *CompiledRule, all bool) Outcome {
	if k := j.caller.rate; all && k != nil {
		switch o := j.only(k); {
		case o == Sent:
		case j.caller.mode == Enforce:
			return o
		default:
			j.drop()
			j.would(o, k.reason)
			j.v.RetryAfter = 0
			j.c.again.over = true
		}
	}
	for _, k := range r.rates[PerCaller] {
		if o := j.keyed(k, j.c.Caller.key()); o != Sent {
			return o
		}
	}
	if byEvent := all && j.p.event != nil; j.c.Event != "" && (byEvent || len(r.rates[PerEvent]) > 0) {
		event := maphash.String(j.a.seed, j.c.Event)
		if byEvent {
			if o := j.keyed(j.p.event, event); o != Sent {
				return o
			}
		}
		for _, k := range r.rates[PerEvent] {
			if o := j.keyed(k, event); o != Sent {
				return o
			}
		}
	}
	byChannel := all && j.p.channel != nil
	if byChannel || len(r.rates[PerChannel]) > 0 {
		keys := j.channelKeys()
		if byChannel {
			if o := j.eachChannel(j.p.channel, keys); o != Sent {
				return o
			}
		}
		for _, k := range r.rates[PerChannel] {
			if o := j.eachChannel(k, keys); o != Sent {
				return o
			}
		}
	}
	for _, k := range r.rates[PerApp] {
		if o := j.only(k); o != Sent {
			return o
		}
	}
	if all && j.p.app != nil {
		return j.only(j.p.app)
	}
	return Sent
}

// channelKeys hashes the channels of a publish to several, in ascending order, which is that of
// locking, and each once. A publish to one channel needs no keys.
func (j *judgement) channelKeys() []channelKey {
	if len(j.c.Channels) < 2 {
		return nil
	}
	keys := j.wide.keys
	for i, name := range j.c.Channels {
		keys = append(keys, channelKey{maphash.String(j.a.seed, name), i})
	}
	slices.SortFunc(keys, func(a, b channelKey) int { return cmp.Compare(a.hash, b.hash) })
	j.wide.keys = slices.CompactFunc(keys, func(a, b channelKey) bool { return a.hash == b.hash })
	return j.wide.keys
}

func (j *judgement) eachChannel(k *keyedRate, keys []channelKey) Outcome {
	if len(j.c.Channels) == 1 {
		o := j.keyed(k, j.channel)
		if o != Sent {
			j.v.Channel = 0
		}
		return o
	}
	for i := range keys {
		if o := j.keyed(k, keys[i].hash); o != Sent {
			j.v.Channel = keys[i].index
			return o
		}
	}
	return Sent
}

func (j *judgement) only(k *keyedRate) Outcome {
	k.only.mu.Lock()
	return j.ask(k, k.only)
}

func (j *judgement) keyed(k *keyedRate, key uint64) Outcome {
	return j.ask(k, j.a.buckets.get(j.now, k.key(key), &k.rate))
}

// ask notes b, which is locked, and asks it for a token.
func (j *judgement) ask(k *keyedRate, b *bucket) Outcome {
	if j.wide == nil && j.heldN == few {
		j.wide = rooms.Get().(*room)
		j.wide.held = append(j.wide.held, j.held[:]...)
	}
	if j.wide == nil {
		j.held[j.heldN] = b
		j.heldN++
	} else {
		j.wide.held = append(j.wide.held, b)
	}
	if wait, ok := b.ask(j.now); !ok {
		return j.refuse(Throttled, k.reason, wait)
	}
	return Sent
}

// drop lets go of the first bucket, the only one so far.
func (j *judgement) drop() {
	if j.wide != nil {
		j.wide.held[0].mu.Unlock()
		j.wide.held = j.wide.held[:0]
		return
	}
	j.held[0].mu.Unlock()
	j.heldN = 0
}

// release takes one token of each bucket, or of none, and unlocks them.
func (j *judgement) release(take bool) {
	held := j.held[:j.heldN]
	if j.wide != nil {
		held = j.wide.held
	}
	for _, b := range held {
		if take {
			b.take()
		}
		b.mu.Unlock()
	}
	j.heldN = 0
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

// pay is step 7. before is what the steps before decided: if it is not Sent the publish goes out
// all the same, because the app observes, and is only booked.
func (j *judgement) pay(ctx context.Context, before Outcome) Outcome {
	l := j.a.ledger
	if l == nil {
		return Sent
	}
	if j.c.Refresh {
		return j.payRefresh(ctx)
	}
	priority := j.c.Rule.spec.Priority
	hold, denial := l.Reserve(ctx, j.now, j.caller.share, priority, j.c.Cost)
	if denial == quota.ShareSpent && j.caller.mode == Observe {
		if before == Sent {
			j.would(OverBudget, ShareSpent)
		}
		hold, denial = l.Reserve(ctx, j.now, nil, priority, j.c.Cost)
	}
	j.v.Hold = hold
	if before != Sent {
		return before
	}
	switch denial {
	case quota.Granted:
		return j.granted()
	case quota.Exhausted:
		return j.exhausted(ctx)
	}
	return j.denied(denial)
}

// denied puts the ledger's denial into a verdict.
func (j *judgement) denied(d quota.Denial) Outcome {
	switch d {
	case quota.PlanSpent:
		return j.refuse(OverBudget, PlanSpent, untilReset(j.now))
	case quota.FloorReserved:
		return j.refuse(OverBudget, FloorReserved, untilReset(j.now))
	case quota.ShareSpent:
		return j.refuse(OverBudget, ShareSpent, untilReset(j.now))
	case quota.Exhausted:
		retry := untilReset(j.now)
		if j.a.breaker != nil {
			retry = j.a.breaker.retryAfter(j.now)
		}
		return j.refuse(OverBudget, Exhausted, retry)
	}
	return j.refuse(Unavailable, StoreLost, storeRetry)
}

// granted has the ledger's consent. If the breaker is open by Pusher's word, either the account
// was opened again, or the ledger has not been told yet; then the breaker goes first.
func (j *judgement) granted() Outcome {
	b := j.a.breaker
	if b == nil {
		return Sent
	}
	open, known := b.openByWord(j.now)
	switch {
	case !open:
		return Sent
	case known:
		b.reopened(j.now)
		return Sent
	case b.tryProbe(j.now):
		j.v.Probe = true
		return Sent
	}
	if j.p.spec.Mode == Enforce {
		j.a.ledger.Refund(j.now, j.v.Hold)
		j.v.Hold = quota.Hold{}
	}
	return j.refuse(OverBudget, BreakerOpen, b.retryAfter(j.now))
}

// exhausted has the ledger's word that Pusher refuses, or a probe's turn.
func (j *judgement) exhausted(ctx context.Context) Outcome {
	b := j.a.breaker
	if b == nil {
		return j.denied(quota.Exhausted)
	}
	b.confirm(j.now)
	if !b.tryProbe(j.now) {
		return j.denied(quota.Exhausted)
	}
	hold, denial := j.a.ledger.Probe(ctx, j.now, j.caller.share, j.c.Rule.spec.Priority, j.c.Cost)
	if denial != quota.Granted {
		b.probed(j.now, false)
		return j.denied(denial)
	}
	j.v.Hold, j.v.Probe = hold, true
	return Sent
}

// storeRetry is how soon a repeat makes sense while the store is lost: about as long as it takes
// to connect again.
const storeRetry = 5 * time.Second
