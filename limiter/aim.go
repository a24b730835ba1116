package limiter

import (
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/rates"
)

// aims are the ledger's aimed brakes, ready to judge. They are immutable.
type aims struct {
	of   *quota.Aims
	list []aim
}

type aim struct {
	spec                   *quota.Aim
	event, channel, caller []glob
	rate                   *keyedRate // nil: it stops
}

// aimed are the aimed brakes for what the ledger has at the moment.
func (a *App) aimed(set *quota.Aims) *aims {
	if now := a.aims.Load(); now != nil && now.of == set {
		return now
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	old := a.aims.Load()
	if old != nil && old.of == set {
		return old
	}
	next := &aims{of: set}
	app := a.policy.Load().spec.App
	for i := range set.List {
		spec := &set.List[i]
		if spec.App != "" && spec.App != app {
			continue
		}
		one := aim{spec: spec, event: globOf(spec.Event), channel: globOf(spec.Channel), caller: globOf(spec.Caller)}
		if spec.PerSecond > 0 {
			one.rate = a.aimRate(spec, old)
		}
		next.list = append(next.list, one)
	}
	a.aims.Store(next)
	return next
}

func globOf(pattern string) []glob {
	if pattern == "" {
		return nil
	}
	return compileGlobs([]string{pattern})
}

// aimRate is the bucket that all of an account's apps on all replicas share for one aimed brake.
func (a *App) aimRate(spec *quota.Aim, old *aims) *keyedRate {
	r, err := Rate{PerSecond: spec.PerSecond, Burst: spec.Burst}.normal()
	if err != nil { // it was checked when it was ordered
		r = Rate{PerSecond: 1, Burst: 1}
	}
	app := spec.App
	if app == "" {
		app = a.policy.Load().spec.App // each app has its own bucket
	}
	k := &keyedRate{rate: r, whose: "brake " + spec.ID, reason: BrakePulled, table: a.buckets, fill: r.fill(),
		wide: rates.RateID(app + " brake " + spec.ID + " " + spec.Since.UTC().Format(time.RFC3339Nano) + " " + r.String())}
	if old != nil {
		for i := range old.list {
			if was := old.list[i].rate; was != nil && was.wide == k.wide {
				return was
			}
		}
	}
	k.only = newBucket(k, 1, spec.ID)
	return k
}

// aimedAt is the part of step 2 that aims: every brake on the publish is asked, and the first that refuses decides.
func (j *judgement) aimedAt(set *quota.Aims, p quota.Priority) Outcome {
	list := j.a.aimed(set).list
	for i := range list {
		b := &list[i]
		if b.spec.Over(j.now) || b.spec.Allow == "critical" && p == quota.Critical ||
			!matchAny(b.event, j.c.Event) || !matchAny(b.caller, j.c.Caller.Name()) || !matchChannels(b.channel, j.c.Channels) {
			continue
		}
		var retry time.Duration
		if b.rate != nil {
			if j.c.again.judged {
				continue // it has paid
			}
			k := b.rate.only
			k.mu.Lock()
			wait, ok := k.ask(j.now, 1)
			if ok {
				k.take(1)
			}
			k.mu.Unlock()
			if ok {
				continue
			}
			retry = max(wait, time.Second)
		} else if !b.spec.Until.IsZero() {
			retry = max(b.spec.Until.Sub(j.now), time.Second)
		}
		j.v.Aim = b.spec
		return j.refuse(Braked, BrakePulled, retry)
	}
	return Sent
}

func matchChannels(globs []glob, channels []string) bool {
	if len(globs) == 0 {
		return true
	}
	for _, c := range channels {
		if matchAny(globs, c) {
			return true
		}
	}
	return false
}

// rateOf finds a rate in force by the name that all replicas give it.
func (a *App) rateOf(wide string) *keyedRate {
	if k := a.policy.Load().rates[wide]; k != nil {
		return k
	}
	if set := a.aims.Load(); set != nil {
		for i := range set.list {
			if k := set.list[i].rate; k != nil && k.wide == wide {
				return k
			}
		}
	}
	return nil
}

// Matcher says whether a publish is one that patterns mean; empty ones match everything.
func Matcher(caller, event, channel string) func(callerName, eventName string, channels []string) bool {
	c, e, ch := globOf(caller), globOf(event), globOf(channel)
	return func(callerName, eventName string, channels []string) bool {
		return matchAny(e, eventName) && matchAny(c, callerName) && matchChannels(ch, channels)
	}
}
