package proxy

import (
	"context"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// relay passes on what is not a publish: the reads, terminate_connections, and
// whatever Pusher adds later. Each is one API call on the bill, so it is judged
// by the caller's rate and the budget, under the built-in rule.
func (p *Proxy) relay(j *job, pr *principal, path []byte, now time.Time) {
	a := pr.app
	j.items = append(j.items, item{claim: limiter.Claim{
		Caller: pr.caller,
		Rule:   a.Limiter.DefaultRule(),
		Cost:   a.Billing.Cost(pusher.Shape{OwnCall: true}),
	}})
	it := &j.items[0]
	it.verdict = a.Limiter.Admit(context.Background(), now, &it.claim)
	if it.verdict.Outcome != limiter.Sent {
		a.Limiter.Done(now, &it.claim, &it.verdict, limiter.NotSent, 0)
		p.answerHeldBack(j, pr, it, now)
		return
	}
	target := path
	if len(path) > len(pathUsers) && string(path[:len(pathUsers)]) == string(pathUsers) {
		target = append(append([]byte("/apps/"), a.ID...), path...)
	}
	got := a.Upstream.admit(j, it.verdict.Rule.Priority(), outgoingOf(j, target, j.in.Body), now)
	if got.quotaSpent {
		p.exhausted(a, got.text, now)
	}
	a.Limiter.Done(now, &it.claim, &it.verdict, got.fate, it.claim.Cost)
	if it.verdict.Probe && got.fate == limiter.Delivered {
		p.reopened(a)
	}
	p.stats.relayed.Add(1)
	passBack(&j.response, &got)
}
