package limiter

import (
	"encoding/binary"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// claimed is a publish's claim among the replicas, which Done ends.
type claimed struct {
	token uint64
	asked bool
}

// defaultSentWithin is Policy.SentWithin where it is not given.
const defaultSentWithin = 10 * time.Second

func twinID(c *Claim) (id quota.TwinID) {
	binary.BigEndian.PutUint64(id[:8], c.Twin[0])
	binary.BigEndian.PutUint64(id[8:], c.Twin[1])
	return id
}

// twins asks the other replicas, through the store, whether the publish is a duplicate. One that
// another replica is sending has a Flight, as one that this replica is sending: it is only a
// duplicate if that one is delivered. Who repeats it here meanwhile waits for the same Flight.
//
// If the store does not answer, or has no room, this replica decides alone. What it then sends is
// told to the store all the same.
func (j *judgement) twins(r *CompiledRule) Outcome {
	record := j.a.twins.Load()
	if record == nil || !r.WantsTwin() || j.c.Twin == [2]uint64{} {
		return Sent
	}
	id := twinID(j.c)
	within := j.p.spec.SentWithin
	if within <= 0 {
		within = defaultSentWithin
	}
	got := record.Claim(j.now, id, r.spec.Dedupe, within)
	window, mine := j.a.window, j.v.ticket
	switch got.As {
	case quota.TwinDelivered:
		window.learn(got.Until, mine)
	case quota.TwinElsewhere:
		if j.p.spec.Mode == Observe {
			return j.refuse(Deduplicated, Duplicate, 0) // nothing waits
		}
		f := window.join(mine)
		j.v.Flight = f
		record.Watch(id, func(delivered bool, until time.Time) {
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
