package proxy

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// rounds bounds how often an event is judged anew because the publish that it
// repeated turned out not to have been delivered.
const rounds = 3

// publish judges each event of one request by itself, sends those that pass in
// one call, and answers in the shape that the SDK expects.
//
// An event that repeats one still under way waits for that one's fate after
// this request's own call is done. So a batch that holds the same event twice
// cannot wait for itself, and no two requests can wait for one another.
//
// With a visit, the call may be begun and left: then later is true, and arrive
// goes on.
func (p *Proxy) publish(j *job, pr *principal, batch bool, path []byte, events []pusher.Publish, now time.Time, v *visit) (later bool) {
	j.open(pr, events)
	var last answer
	switch sending := p.judge(j, pr, now); {
	case sending > 0 && j.standsFor > 0:
		pr.app.Upstream.admission.shed[j.class()][ShedProcessor].Add(1)
		last = pr.app.Upstream.noPlace(ShedProcessor)
		p.settle(j, pr, batch, sending, &last, now)
	case sending > 0:
		out := outgoingOf(j, path, j.sendable(batch, sending))
		if v != nil {
			j.errand = errand{pr: pr, out: out, batch: batch, sending: sending, now: now}
			switch got, begun, left := pr.app.launch(j, v); {
			case left:
				return true
			case begun:
				p.arrive(j, got)
				return false
			}
			j.errand = errand{}
		}
		last = p.send(j, pr, batch, sending, out, now)
	}
	p.conclude(j, pr, batch, path, last, now)
	return false
}

// sendable is the request's body with what is to be sent.
func (j *job) sendable(batch bool, sending int) []byte {
	if batch && sending < len(j.items) {
		return j.buildBatch()
	}
	return j.in.Body
}

// conclude waits for what the request's events repeat, judges those anew that
// are not there, and answers.
func (p *Proxy) conclude(j *job, pr *principal, batch bool, path []byte, last answer, now time.Time) {
	a := pr.app
	for round := 1; p.awaitFlights(j, a); round++ {
		now = p.now()
		if round == rounds || j.due.over(moment()) {
			if got := j.giveUp(a, now); j.due.over(moment()) {
				last = got
			}
			break
		}
		if sending := p.judge(j, pr, now); sending > 0 {
			last = p.send(j, pr, batch, sending, outgoingOf(j, path, j.sendable(batch, sending)), now)
		}
	}
	if a.Record != nil {
		j.record(a, now)
	}
	p.answerPublish(j, pr, batch, last, now)
}

func (j *job) record(a *App, now time.Time) {
	for i := range j.items {
		it := &j.items[i]
		c := &it.claim
		a.Record(now, c.Caller.Name(), c.Event, c.Channels, c.Digest, c.Size, c.Cost, it.verdict.Outcome.String())
	}
}

// open lays out one item an event.
func (j *job) open(pr *principal, events []pusher.Publish) {
	a := pr.app
	for i := range events {
		ev := &events[i]
		first := len(j.channels)
		for _, ch := range ev.Channels {
			j.channels = append(j.channels, borrow(ch))
		}
		channels := j.channels[first:len(j.channels):len(j.channels)]
		name := borrow(ev.Name)
		c := limiter.Claim{
			Caller:   pr.caller,
			Rule:     a.Limiter.Match(name, channels, pr.caller),
			Event:    name,
			Channels: channels,
			Size:     len(ev.Data),
			Cost:     a.price(ev, channels, excluding(ev, a.deliveries(channels)), shareOf(i)),
		}
		if a.Observe != nil || a.Record != nil || c.Rule.WantsDigest() {
			c.Digest = a.seed.Digest(ev)
		}
		if c.Rule.WantsTwin() {
			c.Twin = a.seed.Identity(ev)
		}
		if key := c.Rule.ConflateKey(); key != "" {
			var found bool
			if c.Group, found = a.seed.ValueAt(ev.Data, key); found {
				c.Group = a.seed.Mix(c.Group, ev)
			}
		} else {
			c.Group = a.seed.Mix(c.Group, ev)
		}
		j.items = append(j.items, item{})
		it := &j.items[i]
		it.publish, it.claim = ev, c
	}
}

// excluding leaves out the one connection that a publish excludes.
func excluding(p *pusher.Publish, deliveries int64) int64 {
	if len(p.SocketID) > 0 && deliveries > 0 {
		return deliveries - 1
	}
	return deliveries
}

// shareOf is how an event shares a call that holds its whole request.
func shareOf(index int) sharing {
	if index == 0 {
		return bearsCall
	}
	return sharesBatch
}

func outgoingOf(j *job, path, body []byte) outgoing {
	return outgoing{method: borrow(j.in.Method), path: path, query: &j.query, body: body, library: j.in.Library}
}

// judge takes the items that wait for a verdict through AdmitAll and returns how
// many are to be sent.
func (p *Proxy) judge(j *job, pr *principal, now time.Time) (sending int) {
	began := moment()
	j.due.begin(began, pr.app.Upstream.timeout)
	j.judging = j.judging[:0]
	for i := range j.items {
		it := &j.items[i]
		if it.state != toJudge {
			continue
		}
		if pr.app.Observe != nil && !it.claim.Late && !it.observed {
			it.observed = true
			c := &it.claim
			for range max(1, j.standsFor) {
				pr.app.Observe(now, pr.app.ID, c.Caller.Name(), c.Event, c.Channels, c.Digest[0], c.Cost)
			}
		}
		it.claim.Vacant = it.claim.Rule.SkipsVacant() && pr.app.vacant(it.publish, it.claim.Channels, now)
		j.judging = append(j.judging, limiter.Judging{Claim: &it.claim, Verdict: &it.verdict})
	}
	pr.app.Limiter.AdmitAll(context.Background(), now, j.judging)
	for i := range j.items {
		it := &j.items[i]
		if it.state != toJudge {
			continue
		}
		switch {
		case p.overtakes(pr, it, now):
			it.state = settled
			it.verdict.Outcome, it.verdict.Reason = limiter.Conflated, limiter.NewerValue
			pr.app.Limiter.Done(now, &it.claim, &it.verdict, limiter.NotSent, 0)
		case it.verdict.Outcome == limiter.Sent:
			it.state = toSend
			sending++
		case it.verdict.Flight != nil:
			it.state = inFlight
		case it.verdict.Outcome == limiter.Digested:
			if !p.digest(pr.app, it, now) {
				it.verdict.Outcome, it.verdict.Would, it.verdict.Reason = limiter.OverBudget, limiter.OverBudget, it.verdict.Shed
				it.verdict.RetryAfter = utcMidnight(now).Sub(now)
			}
			it.state = settled
			pr.app.Limiter.Done(now, &it.claim, &it.verdict, limiter.NotSent, 0)
		case it.verdict.Outcome == limiter.Conflated && !p.hold(j, pr, it, now):
			// It cannot be kept safe, so it must not be answered as kept: it goes
			// out now.
			it.claim.Late = true
			it.verdict = pr.app.Limiter.Admit(context.Background(), now, &it.claim)
			if it.verdict.Outcome == limiter.Sent {
				it.state = toSend
				sending++
				continue
			}
			it.state = settled
			pr.app.Limiter.Done(now, &it.claim, &it.verdict, limiter.NotSent, 0)
		case it.claim.Late:
			it.state = settled // it was counted when it was answered, and is tried again
		default:
			it.state = settled
			pr.app.Limiter.Done(now, &it.claim, &it.verdict, limiter.NotSent, 0)
		}
	}
	j.judged = moment()
	p.stats.decision.Observe(j.judged.Sub(began).Seconds())
	return sending
}

// send makes one upstream call of all items that are to be sent, and settles
// each by what became of it.
func (p *Proxy) send(j *job, pr *principal, batch bool, sending int, out outgoing, now time.Time) answer {
	got := pr.app.carry(j, pr, batch, sending, out, now)
	p.settle(j, pr, batch, sending, &got, now)
	return got
}

// settle gives each item that was sent what became of the call.
func (p *Proxy) settle(j *job, pr *principal, batch bool, sending int, got *answer, now time.Time) {
	if got.quotaSpent {
		p.exhausted(pr.app, got.text, now)
	}
	if got.fate == limiter.Delivered {
		p.readInfo(j, pr.app, batch, sending, got.body, now)
	}
	share := got.share
	for i := range j.items {
		it := &j.items[i]
		if it.state != toSend {
			continue
		}
		it.state = settled
		var actual int64
		var guess weight
		switch {
		case got.fate == limiter.Refused && share == bearsCall:
			actual = pr.app.Billing.Cost(pusher.Shape{OwnCall: true, Failed: true})
		case got.fate == limiter.Refused:
			actual = 0
		default:
			n := it.deliveries
			if !it.counted {
				guess = pr.app.weigh(it.claim.Channels)
				n = guess.deliveries
			}
			// The excluded socket gets none, once in a call: where several publishes
			// share a trigger, only the one that bears the call may count on it.
			if share != sharesTrigger {
				n = excluding(it.publish, n)
			}
			actual = pr.app.price(it.publish, it.claim.Channels, n, share)
		}
		if share == bearsCall {
			share = sharesBatch // of this request's own events, only the first bears the call
		}
		if got.outcome != limiter.Sent {
			it.verdict.Outcome = got.outcome
			it.verdict.Reason = got.reason
			it.verdict.RetryAfter = got.retryAfter
		}
		pr.app.Limiter.Done(now, &it.claim, &it.verdict, got.fate, actual)
		if got.fate != limiter.NotSent {
			pr.app.noteGuess(guess, actual)
		}
		if it.verdict.Probe && got.fate == limiter.Delivered {
			p.reopened(pr.app)
		}
	}
}

// buildBatch writes a batch of only the items to be sent; each event's bytes
// stay as the caller wrote them.
func (j *job) buildBatch() []byte {
	b := append(j.body[:0], `{"batch":[`...)
	sep := false
	for i := range j.items {
		if j.items[i].state != toSend {
			continue
		}
		if sep {
			b = append(b, ',')
		}
		sep = true
		b = append(b, j.items[i].publish.Raw...)
	}
	j.body = append(append(append(b, ']'), j.decoder.Envelope()...), '}')
	return j.body
}

// awaitFlights waits for the publishes that items of this request repeat. It
// reports whether any item must be judged again, because its twin did not get
// through, or is not known to have within the request's time.
func (p *Proxy) awaitFlights(j *job, a *App) (again bool) {
	for i := range j.items {
		it := &j.items[i]
		if it.state != inFlight {
			continue
		}
		f := it.verdict.Flight
		if _, known := wait(&j.due, j.due.until, f.Done(), nil); known && f.Fate() == limiter.Delivered {
			it.state = settled
			a.Limiter.Done(p.now(), &it.claim, &it.verdict, limiter.NotSent, 0)
			continue
		}
		it.state = toJudge
		again = true
	}
	return again
}

// giveUp ends items whose twins failed again and again, or have no known fate in time:
// nothing of them was sent, and the caller must know.
func (j *job) giveUp(a *App, now time.Time) answer {
	got := late(awaitedTwin, a.Upstream.timeout)
	for i := range j.items {
		it := &j.items[i]
		if it.state == toJudge {
			it.state = settled
			it.verdict.Outcome = got.outcome
			it.verdict.Reason = got.reason
			it.verdict.RetryAfter = got.retryAfter
			a.Limiter.Done(now, &it.claim, &it.verdict, limiter.NotSent, 0)
		}
	}
	return got
}
