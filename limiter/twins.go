package limiter

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"github.com/pushguard/pushguard/quota/dedupe"
)

// claimed is a publish's claim among the replicas, which Done ends.
type claimed struct {
	token uint64
	asked bool
}

// defaultSentWithin is Policy.SentWithin where it is not given.
const defaultSentWithin = 10 * time.Second

func twinID(c *Claim) (id dedupe.ID) {
	binary.BigEndian.PutUint64(id[:8], c.Twin[0])
	binary.BigEndian.PutUint64(id[8:], c.Twin[1])
	return id
}

// twins is the record that must be asked whether the publish is a duplicate of another replica's; nil:
// none.
func (j *judgement) twins() *dedupe.Claims {
	if !j.c.Rule.WantsTwin() || j.c.Twin == [2]uint64{} {
		return nil
	}
	return j.a.twins.Load()
}

// want is the question.
func (j *judgement) want() dedupe.Want {
	within := j.p.spec.SentWithin
	if within <= 0 {
		within = defaultSentWithin
	}
	return dedupe.Want{ID: twinID(j.c), Window: j.c.Rule.spec.Dedupe, Hold: within}
}

// heard goes on with the answer. A publish that another replica is sending has a Flight, as one
// that this replica is sending: it is only a duplicate if that one is delivered. Who repeats it here
// meanwhile waits for the same Flight.
//
// If the store does not answer, or has no room, this replica decides alone. What it then sends is
// told to the store all the same.
func (j *judgement) heard(got dedupe.Claim) Outcome {
	window, mine := j.a.window, j.v.ticket
	switch got.As {
	case dedupe.Delivered:
		window.learn(got.Until, mine)
	case dedupe.Elsewhere:
		if j.p.spec.Mode == Observe {
			return j.refuse(Deduplicated, Duplicate, 0) // nothing waits
		}
		f := window.join(mine)
		j.v.Flight = f
		j.record.Watch(twinID(j.c), func(delivered bool, until time.Time) {
			switch {
			case mine.serial == 0:
				f.fate = NotSent
				if delivered {
					f.fate = Delivered
				}
				close(f.done)
			case delivered:
				window.learn(until, mine)
			default:
				window.end(until, mine, NotSent)
			}
		})
	default:
		j.v.twin = claimed{got.Token, true}
		return Sent
	}
	j.v.ticket = ticket{}
	return j.refuse(Deduplicated, Duplicate, 0)
}

// Judging is one claim of a request that has several, and where the verdict on it goes.
type Judging struct {
	Claim   *Claim
	Verdict *Verdict
}

// AdmitAll admits the events of one request: to each happens what Admit would have done with it, had
// they come one after the other. What is to ask the other replicas waits until all have been judged
// that far, and then shares a round trip; so nothing is claimed that the judgement refuses anyway, and
// no claim waits for another's turn. Two of the same among them do not both ask: the second has the
// Flight of the first.
//
// Requests cannot wait for one another's claims in a circle: an answer of the store waits for nobody,
// and a border sends and settles what it may send before it waits for a Flight; so who waits holds no
// claim, in whatever order the events of two requests stand.
func (a *App) AdmitAll(ctx context.Context, now time.Time, all []Judging) {
	if len(all) == 1 {
		*all[0].Verdict = a.Admit(ctx, now, all[0].Claim)
		return
	}
	p := a.policy.Load()
	var q *asking
	for i := range all {
		var j judgement
		j.open(a, p, all[i].Claim, now)
		outcome := j.judge()
		if j.record == nil {
			j.close(ctx, outcome)
		} else {
			if q == nil {
				q = askings.Get().(*asking)
				q.record = j.record
			}
			q.wants, q.of = append(q.wants, j.want()), append(q.of, i)
		}
		*all[i].Verdict = j.v
	}
	if q == nil {
		return
	}
	q.record.ClaimAll(now, q.wants)
	for n, i := range q.of {
		j := judgement{a: a, p: p, record: q.record, c: all[i].Claim, caller: p.caller(all[i].Claim.Caller), now: now, v: *all[i].Verdict}
		j.close(ctx, j.heard(q.wants[n].Got))
		*all[i].Verdict = j.v
	}
	q.record, q.wants, q.of = nil, q.wants[:0], q.of[:0]
	askings.Put(q)
	// The first of some that are the same may have its fate already: another replica delivered it, or a later step
	// refused it, and the next is judged for itself.
	for i := range all {
		switch fate, known := all[i].Verdict.Flight.landed(); {
		case known && fate == Delivered:
			all[i].Verdict.Flight = nil
		case known:
			*all[i].Verdict = a.Admit(ctx, now, all[i].Claim)
		}
	}
}

// asking is what the events of one request ask the other replicas.
type asking struct {
	record *dedupe.Claims
	wants  []dedupe.Want
	of     []int // which event of the request asks it
}

var askings = sync.Pool{New: func() any { return new(asking) }}

// disclaim takes a claim back, of a publish that a later step refused.
func (j *judgement) disclaim() {
	if j.v.twin.asked {
		j.a.settleTwin(j.now, j.c, &j.v, false)
		j.v.twin = claimed{}
	}
}

// settleTwin tells the other replicas what became of a publish. A policy without the record any
// more has nobody to tell; the claim ends by itself.
func (a *App) settleTwin(now time.Time, c *Claim, v *Verdict, delivered bool) {
	if t := a.twins.Load(); t != nil {
		t.Settle(now, twinID(c), v.twin.token, c.Rule.spec.Dedupe, delivered)
	}
}
