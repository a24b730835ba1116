package limiter

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
)

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
		if o := j.keyed(k, j.c.Caller.key(), j.c.Caller.Name()); o != Sent {
			return o
		}
	}
	if byEvent := all && j.p.event != nil; j.c.Event != "" && (byEvent || len(r.rates[PerEvent]) > 0) {
		event := maphash.String(j.a.seed, j.c.Event)
		if byEvent {
			if o := j.keyed(j.p.event, event, j.c.Event); o != Sent {
				return o
			}
		}
		for _, k := range r.rates[PerEvent] {
			if o := j.keyed(k, event, j.c.Event); o != Sent {
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
	if k.part != nil {
		return j.partly(k)
	}
	if len(j.c.Channels) == 1 {
		o := j.keyed(k, maphash.String(j.a.seed, j.c.Channels[0]), j.c.Channels[0])
		if o != Sent {
			j.v.Channel = 0
		}
		return o
	}
	for i := range keys {
		if o := j.keyed(k, keys[i].hash, j.c.Channels[keys[i].index]); o != Sent {
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

func (j *judgement) keyed(k *keyedRate, key uint64, name string) Outcome {
	return j.ask(k, j.a.buckets.get(j.now, k.key(key), k, name))
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
	if wait, ok := b.ask(j.now, k.tokens(j.c)); !ok {
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
			b.take(b.of.tokens(j.c))
		}
		b.mu.Unlock()
	}
	j.heldN = 0
}

// hashOf is the hash by which a rate knows a name.
func (a *App) hashOf(per Per, name string) uint64 {
	if per == PerCaller {
		return a.Caller(name).key()
	}
	return maphash.String(a.seed, name)
}
