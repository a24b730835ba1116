package limiter

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/quota"
)

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
	if d == quota.NotYet {
		return j.refuse(Unavailable, LeaseWait, storeRetry)
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
	if denial == quota.PlanSpent || denial == quota.FloorReserved {
		// What Pusher's refusal showed to be missing is booked, so nothing is left to pay a probe with; what it costs is
		// booked when it is known.
		hold, denial = quota.Hold{}, quota.Granted
	}
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
