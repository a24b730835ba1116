package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/pusher/wire"

	"github.com/valyala/fasthttp"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
)

// outcomeRefused marks what Pusher does not take whatever the guard thinks of
// it: what it would refuse (a bad signature, a malformed body) and so never came
// to judgement, and what it did refuse.
const outcomeRefused = "refused"

// statusOf is the one table from outcome to status. An answer of 200 is always
// accompanied by the JSON object that SDKs expect; 202 or an empty body makes
// several of them fail.
var statusOf = [limiter.Outcomes]int{
	limiter.Sent:         fasthttp.StatusOK,
	limiter.Deduplicated: fasthttp.StatusOK,
	limiter.Conflated:    fasthttp.StatusOK,
	limiter.Digested:     fasthttp.StatusOK,
	limiter.Vacant:       fasthttp.StatusOK,
	limiter.Throttled:    fasthttp.StatusTooManyRequests,
	limiter.Contained:    fasthttp.StatusTooManyRequests,
	limiter.OverBudget:   fasthttp.StatusForbidden,
	limiter.Braked:       fasthttp.StatusForbidden,
	limiter.Unavailable:  fasthttp.StatusServiceUnavailable,
}

// status is the table with a rule's own choice of answer applied.
func status(v *limiter.Verdict) int {
	s := statusOf[v.Outcome]
	if s == fasthttp.StatusOK || v.Outcome == limiter.Unavailable {
		return s
	}
	switch v.Answer {
	case limiter.AnswerOK:
		return fasthttp.StatusOK
	case limiter.Answer403:
		return fasthttp.StatusForbidden
	case limiter.Answer429:
		return fasthttp.StatusTooManyRequests
	}
	return s
}

// refuse answers with one plain sentence: .NET's SDK loses a JSON error
// silently.
func refuse(r *wire.Response, status int, reason, text string) {
	*r = wire.Response{Status: status, ContentType: contentPlain, Outcome: outcomeRefused, Reason: reason, Body: bytesOf(text), Last: r.Last}
}

// unavailable answers when this replica, not the caller, is the reason.
func (p *Proxy) unavailable(j *job, reason string, status int, after time.Duration, text string) {
	refuse(&j.response, status, reason, text)
	j.response.Outcome = limiter.Unavailable.String()
	j.response.RetryIn(after)
	p.stats.unavailable.Add(1)
}

// answerPublish answers an events or batch_events request once each of its
// items has its final verdict. The request fails only if nothing of it was
// accepted; the outcome header tells, in the order of the batch, what each
// event met.
func (p *Proxy) answerPublish(j *job, pr *principal, batch bool, got answer, now time.Time) {
	worst, accepted, uniform, untouched := &j.items[0], false, true, true
	for i := range j.items {
		it := &j.items[i]
		if limiter.Stricter(worst.verdict.Outcome, it.verdict.Outcome) != worst.verdict.Outcome {
			worst = it
		}
		if status(&it.verdict) == fasthttp.StatusOK {
			accepted = true
		}
		uniform = uniform && it.verdict.Outcome == j.items[0].verdict.Outcome
		untouched = untouched && it.verdict.Outcome == limiter.Sent
	}
	r := &j.response
	if untouched {
		passBack(r, &got)
		j.observed()
		return
	}
	// A call that Pusher refused, with some items answered here: its words are
	// what the caller must see.
	if got.status >= 300 && got.outcome == limiter.Sent {
		passBack(r, &got)
		j.setOutcomes(uniform)
		return
	}
	if !accepted {
		p.answerHeldBack(j, pr, worst, now)
		if got.outcome == worst.verdict.Outcome && got.text != "" {
			r.Status, r.Reason, r.Body = got.status, got.word, bytesOf(sentence(&got))
			r.RetryIn(got.retryAfter)
		}
		if !uniform {
			j.setOutcomes(uniform)
		}
		return
	}
	r.Status, r.ContentType = fasthttp.StatusOK, contentJSON
	j.body = appendAccepted(j.body[:0], j, batch)
	r.Body = j.body
	j.setOutcomes(uniform)
	if worst.verdict.Outcome != limiter.Sent {
		r.Reason = worst.verdict.Reason.String()
		if status(&worst.verdict) != fasthttp.StatusOK {
			r.RetryIn(worst.verdict.RetryAfter)
		}
	}
}

func sentence(got *answer) string {
	if got.quotaSpent {
		return "over message quota, says Pusher itself: " + got.text
	}
	return got.text
}

// asks is what is asked, for a sentence about it.
func asks(k limiter.Kind) string {
	switch k {
	case limiter.KindRead:
		return "read"
	case limiter.KindTerminate:
		return "terminate_connections call"
	case limiter.KindOther:
		return "request"
	}
	return "publish"
}

// passBack passes Pusher's own answer on, or says why there is none.
func passBack(r *wire.Response, got *answer) {
	r.Status = got.status
	if got.outcome != limiter.Sent {
		r.ContentType, r.Outcome, r.Reason, r.Body = contentPlain, got.outcome.String(), got.word, bytesOf(sentence(got))
		r.RetryIn(got.retryAfter)
		return
	}
	r.ContentType, r.Encoding, r.Outcome, r.Body = got.contentType, got.encoding, limiter.Sent.String(), got.body
	if len(r.ContentType) == 0 {
		r.ContentType = contentJSON
	}
	if got.fate == limiter.Refused {
		r.Outcome, r.Reason = outcomeRefused, got.word
		r.RetryIn(got.retryAfter)
	}
}

// observed tells what enforcement would have done, in observe mode.
func (j *job) observed() {
	for i := range j.items {
		if v := &j.items[i].verdict; v.Would != limiter.Sent {
			j.response.Would, j.response.Reason = v.Would.String(), v.Reason.String()
			return
		}
	}
}

// setOutcomes says one word where all events met the same, and otherwise one
// an event, in the order of the batch.
func (j *job) setOutcomes(uniform bool) {
	if uniform {
		j.response.Outcome = j.items[0].verdict.Outcome.String()
		return
	}
	b := j.outcome[:0]
	for i := range j.items {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = append(b, j.items[i].verdict.Outcome.String()...)
	}
	j.outcome = b
	j.response.Outcome = borrow(b)
}

// answerHeldBack refuses, or accepts in silence where the rule says so.
func (p *Proxy) answerHeldBack(j *job, pr *principal, it *item, now time.Time) {
	v, r := &it.verdict, &j.response
	r.Status, r.Outcome, r.Reason = status(v), v.Outcome.String(), v.Reason.String()
	r.RetryIn(v.RetryAfter)
	if r.Status == fasthttp.StatusOK {
		r.ContentType, r.Body = contentJSON, emptyObject
		return
	}
	j.body = appendExplanation(j.body[:0], pr, it, now)
	r.ContentType, r.Body = contentPlain, j.body
}

// appendAccepted writes the object that Pusher would send. Where info was asked
// for, an event that was not sent gets an object without counts: none are known
// to be true.
func appendAccepted(b []byte, j *job, batch bool) []byte {
	asked := false
	for i := range j.items {
		asked = asked || j.items[i].publish.HasInfo
	}
	if !asked {
		return append(b, '{', '}')
	}
	if batch {
		b = append(b, `{"batch":[`...)
		for i := range j.items {
			if i > 0 {
				b = append(b, ',')
			}
			if info := j.items[i].info; len(info) > 0 {
				b = append(b, info...)
			} else {
				b = append(b, '{', '}')
			}
		}
		return append(b, `]}`...)
	}
	b = append(b, `{"channels":{`...)
	for i, ch := range j.items[0].claim.Channels {
		if i > 0 {
			b = append(b, ',')
		}
		b = pusher.AppendString(b, []byte(ch))
		b = append(b, `:{}`...)
	}
	return append(b, `}}`...)
}

// appendSeconds writes d in seconds, to the millisecond.
func appendSeconds(b []byte, d time.Duration) []byte {
	ms := int64(d.Round(time.Millisecond) / time.Millisecond)
	b = strconv.AppendInt(b, ms/1000, 10)
	if ms %= 1000; ms == 0 {
		return b
	}
	b = append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// appendQuoted is strconv.AppendQuote, which looks up what each character is, for
// names that are mostly plain.
func appendQuoted(b []byte, name string) []byte {
	if !wire.Printable(bytesOf(name)) || strings.ContainsAny(name, `"\\`) {
		return strconv.AppendQuote(b, name)
	}
	return append(append(append(b, '"'), name...), '"')
}

// appendExplanation writes the sentence that a developer acts on.
func appendExplanation(b []byte, pr *principal, it *item, now time.Time) []byte {
	v, a := &it.verdict, pr.app
	who := it.claim.Caller.Name()
	switch v.Outcome {
	case limiter.Throttled: // the refusal that comes in floods: without fmt
		switch v.Reason {
		case limiter.ChannelRate:
			ch := ""
			if v.Channel >= 0 && v.Channel < len(it.claim.Channels) {
				ch = it.claim.Channels[v.Channel]
			}
			b = appendQuoted(append(b, "rate limit: channel "...), ch)
			b = appendQuoted(append(b, " got more publishes than rule "...), it.claim.Rule.Name())
			b = append(b, " allows"...)
		case limiter.EventRate:
			b = appendQuoted(append(b, "rate limit: event "...), it.claim.Event)
			b = appendQuoted(append(b, " comes more often than rule "...), it.claim.Rule.Name())
			b = append(b, " allows"...)
		case limiter.CallerRate:
			b = appendQuoted(append(b, "rate limit: caller "...), who)
			b = append(b, " sends faster than it may"...)
		case limiter.QuotaSpent:
			b = appendQuoted(append(b, "quota: what rule "...), it.claim.Rule.Name())
			b = append(b, " allows a day"...)
			if v.Channel >= 0 && v.Channel < len(it.claim.Channels) {
				b = appendQuoted(append(b, " for channel "...), it.claim.Channels[v.Channel])
			}
			b = append(b, " is used up; the day ends at "...)
			return append(utcMidnight(now).AppendFormat(b, time.RFC3339), '.')
		case limiter.AppRate:
			b = append(append(append(b, "rate limit: app "...), a.ID...), " sends faster than it may"...)
		default:
			b = appendQuoted(append(b, "rate limit: more publishes match rule "...), it.claim.Rule.Name())
			b = append(b, " than it allows"...)
		}
		if v.RetryAfter > 0 {
			b = append(b, "; try again in "...)
			b = append(appendSeconds(b, v.RetryAfter), " s"...)
		}
		return append(b, '.')
	case limiter.Contained:
		b = fmt.Appendf(b, "contained: caller %q with event %q is the culprit of an open incident and is held to its usual rate", who, it.claim.Event)
		return append(b, '.')
	case limiter.Braked:
		if v.Reason == limiter.RuleDenies {
			return append(appendQuoted(append(b, "denied by rule "...), it.claim.Rule.Name()), ": nothing that it matches is sent."...)
		}
		if v.Aim != nil {
			return fmt.Appendf(b, "stopped by hand: %s braked %s (%s).", or(v.Aim.By, "an operator"), v.Aim.What(), or(v.Aim.Reason, "no reason given"))
		}
		brake := a.Ledger.CurrentBrake(now)
		if brake == nil {
			return append(b, "stopped by the brake, which was lifted this moment; send it again."...)
		}
		b = fmt.Appendf(b, "stopped by hand: %s pulled the brake on account %s (%s); %s", or(brake.By, "an operator"), a.Account, or(brake.Reason, "no reason given"),
			map[bool]string{true: "only critical publishes pass", false: "nothing passes"}[brake.Allow == "critical"])
		if !brake.Until.IsZero() {
			b = fmt.Appendf(b, " until %s", brake.Until.UTC().Format(time.RFC3339))
		}
		return append(b, '.')
	case limiter.OverBudget:
		used, plan := a.Ledger.Used(now)
		reset := utcMidnight(now).Format(time.RFC3339)
		b = fmt.Appendf(b, "over message quota: ")
		switch v.Reason {
		case limiter.ShareSpent:
			b = fmt.Appendf(b, "caller %q has used its share of account %s's plan (%d messages a day)", who, a.Account, plan)
		case limiter.Exhausted:
			b = fmt.Appendf(b, "Pusher says that account %s has used up its plan", a.Account)
		case limiter.SheddingBulk, limiter.SheddingNormal, limiter.CriticalOnly, limiter.FloorReserved:
			b = fmt.Appendf(b, "account %s has used %d of %d messages, and what is left is kept for what is more important than a %s %s", a.Account, used, plan, it.claim.Rule.Priority(), asks(it.claim.Kind))
		default:
			b = fmt.Appendf(b, "account %s has used %d of %d messages and this %s costs %d", a.Account, used, plan, asks(it.claim.Kind), it.claim.Cost)
		}
		return fmt.Appendf(b, "; the day ends at %s.", reset)
	case limiter.Unavailable:
		switch v.Reason {
		case limiter.StoreLost:
			return append(b, "pushguard's store is out of reach, and this replica has spent what it may send without it (on_store_loss); it was not sent, and cost nothing. Try again in a moment."...)
		case limiter.LeaseWait:
			return append(b, "the plan has room, but this replica did not get messages of it in time; it was not sent, and cost nothing. Try again in a second."...)
		}
		return append(b, "Pusher failed on the same publish from another request, and on this one's tries; it was not delivered."...)
	}
	return append(b, v.Outcome.String()...)
}
