package proxy

import (
	"bytes"
	"context"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// kindOf says what is asked by what is not a publish.
func kindOf(method, path []byte) limiter.Kind {
	switch m := string(method); {
	case m == "GET" || m == "HEAD":
		return limiter.KindRead
	case m == "POST" && bytes.HasSuffix(path, pathOfTerminate):
		return limiter.KindTerminate
	}
	return limiter.KindOther
}

// relay passes on what is not a publish: the reads, terminate_connections, and
// whatever Pusher adds later. Each is one API call on the bill, so it is judged
// by the caller's rate and the budget, under the first rule for its kind.
func (p *Proxy) relay(j *job, pr *principal, path []byte, now time.Time) {
	a := pr.app
	kind := kindOf(j.in.Method, path)
	j.items = append(j.items, item{claim: limiter.Claim{
		Caller: pr.caller,
		Rule:   a.Limiter.MatchKind(kind, pr.caller),
		Kind:   kind,
		Cost:   a.Billing.Cost(pusher.Shape{OwnCall: true}),
	}})
	it := &j.items[0]
	j.due.begin(moment(), a.Upstream.timeout)
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
	out := outgoingOf(j, target, j.in.Body)
	out.unescaped = a.Upstream.unescapes.Load()
	got := p.relayed(j, a, it, out, now)
	if got.word == "upstream_unauthorized" && bytes.IndexByte(target, '%') >= 0 {
		// Servers differ in whether they unescape a path before they check a signature. What was not taken had no effect.
		out.unescaped = !out.unescaped
		if got = p.relayed(j, a, it, out, now); got.word != "upstream_unauthorized" {
			a.Upstream.unescapes.Store(out.unescaped)
		}
	}
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

// relayed makes the call.
func (p *Proxy) relayed(j *job, a *App, it *item, out outgoing, now time.Time) (got answer) {
	if it.claim.Kind != limiter.KindRead {
		return a.Upstream.admit(j, it.verdict.Rule.Priority(), out, now)
	}
	got, stream, size := a.Upstream.read(j, out, now)
	if stream != nil {
		j.response.Stream, j.response.Size = stream, size
	}
	return got
}
