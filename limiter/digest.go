package limiter

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// DigestShare is the name of the share of the plan that pays for refresh events. No caller can have
// it: the config's names begin with a letter or a digit.
const DigestShare = "~digest"

// digested turns a publish that is shed for its priority into one whose channels get a refresh event,
// where the policy says so. The border sees to the event, and makes it OverBudget by Shed again if
// it cannot. What a person stopped, or Pusher itself, is not digested.
func (j *judgement) digested(o Outcome) Outcome {
	if o != OverBudget || !j.p.spec.Digest || j.c.Rule.spec.NoDigest || j.c.Late {
		return o
	}
	switch j.v.Reason {
	case SheddingBulk, SheddingNormal, CriticalOnly, FloorReserved:
		j.v.Shed, j.v.Reason, j.v.RetryAfter = j.v.Reason, Refreshed, 0
		return Digested
	}
	return o
}

// AffordsRefresh says whether a refresh event of that price could be paid now. It may wait for the
// store, so it is asked once an interval and channel.
func (a *App) AffordsRefresh(ctx context.Context, now time.Time, cost int64) bool {
	if a.ledger == nil {
		return true
	}
	hold, denial := a.ledger.Reserve(ctx, now, a.ledger.Share(DigestShare), quota.Critical, cost)
	if denial != quota.Granted {
		return false
	}
	a.ledger.Refund(now, hold)
	return true
}

// payRefresh is step 7 for a refresh event. It never serves as a probe.
func (j *judgement) payRefresh(ctx context.Context) Outcome {
	hold, denial := j.a.ledger.Reserve(ctx, j.now, j.a.ledger.Share(DigestShare), quota.Critical, j.c.Cost)
	if denial != quota.Granted {
		return j.denied(denial)
	}
	j.v.Hold = hold
	return Sent
}
