package limiter

import (
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/rates"
)

// share is what a bucket has that other replicas know of, or must. It belongs to its bucket's mutex.
type share struct {
	managed  bool // the store knows of it; else it is the even part of all replicas
	unheard  bool // it holds nothing because this replica has not heard who else there is
	starving bool // another replica refuses for want of tokens
	busy     bool // there is not enough for all
	refusedN bool // since the last report
	again    bool // it should be reported next time too
	lost     time.Time
	spentN   int64 // tokens taken since it is managed
	askedN   int64 // tokens asked for since the last report
	back     float64
	demand   float64   // a second, as reported
	at       time.Time // of the last report
	next     time.Time // when the whole bucket has a token
	whole    float64
	part     float64 // of the demand of all replicas; 0: not heard
	used     time.Time
}

// sharing is what a table of buckets has to share them by.
type sharing struct {
	gen   atomic.Uint32
	many  atomic.Bool // more than one replica has a part
	split atomic.Pointer[rates.Split]
	kick  atomic.Pointer[func()]

	dmu   sync.Mutex
	dirty []*bucket // queued for a report, in order
	spare []*bucket
	sent  []*bucket // of the last Collect

	kmu   sync.Mutex
	known map[rates.ID]int64 // buckets that the store knows and this replica does not hold, with the tokens reserved for it
	knows atomic.Bool
}

// knownMost bounds known.
const knownMost = 1 << 17

func (s *sharing) start() {
	s.gen.Store(1)
	s.split.Store(&rates.Split{})
}

// follow has b's share follow the split, and counts what is asked of it. b.mu is held.
func (b *bucket) follow(t *bucketTable, n int32) {
	if b.sh != nil {
		b.sh.askedN += int64(n)
		if b.sh.managed {
			b.rested()
		}
	}
	gen := t.gen.Load()
	if b.gen == gen {
		return
	}
	s := t.split.Load()
	first := b.gen == 0
	b.gen = gen
	if b.sh != nil && b.sh.managed {
		return
	}
	if first && t.knows.Load() && b.claim(t) {
		return
	}
	perSecond, burst := s.Of(b.of.rate.PerSecond, b.of.rate.Burst, b.spread())
	b.sure = 0
	if s.None {
		b.share().unheard = true
		b.drain()
		t.push(b)
		return
	}
	if first || b.sh != nil && b.sh.unheard {
		b.lim = rate.Limiter{}
		b.lim.SetBurstAt(time.Time{}, burst)
		b.lim.AllowN(b.last, -burst)
		b.lim.SetLimitAt(b.last, rate.Limit(perSecond))
		if b.sh != nil {
			b.sh.unheard = false
		}
		if s.Shared && b.of.long() {
			b.share().askedN += int64(n)
		}
		return
	}
	b.set(perSecond, burst)
}

// long says whether buckets of this rate are kept in the store from their first token on.
func (k *keyedRate) long() bool { return k.fill > rates.LongWindow }

func (b *bucket) set(perSecond float64, burst int) {
	b.lim.SetLimitAt(b.last, rate.Limit(perSecond))
	b.lim.SetBurstAt(b.last, burst)
	b.sure = 0
}

// drain leaves b nothing.
func (b *bucket) drain() {
	b.lim.SetLimitAt(b.last, 0)
	b.lim.SetBurstAt(b.last, b.of.rate.Burst)
	if n := int(b.lim.TokensAt(b.last)); n > 0 {
		b.lim.AllowN(b.last, n)
	}
	b.sure = 0
}

func (b *bucket) share() *share {
	if b.sh == nil {
		b.sh = &share{at: b.last, used: b.last}
	}
	return b.sh
}

// rested cuts a share that was not used for as long as the whole takes to fill down to an even part: by then the others
// may have forgotten that it was larger.
func (b *bucket) rested() {
	sh := b.sh
	idle := b.last.Sub(sh.used)
	sh.used = b.last
	if idle <= b.of.fill+2*time.Second {
		return
	}
	s := b.of.table.split.Load()
	perSecond, burst := s.Of(b.of.rate.PerSecond, b.of.rate.Burst, b.spread())
	if over := int(b.lim.TokensAt(b.last)) - burst; over > 0 {
		b.lim.AllowN(b.last, over)
	}
	b.set(min(perSecond, float64(b.lim.Limit())), b.lim.Burst())
}

// near has the other replicas told that b runs low. b.mu is held.
func (b *bucket) near() {
	t := b.of.table
	if s := t.split.Load(); !s.Shared || s.Replicas <= 1 {
		return
	}
	b.share()
	t.push(b)
}

// refused says how long it takes until the whole bucket has n tokens. b.mu is held.
func (b *bucket) refused(left float64, n int32) time.Duration {
	t := b.of.table
	s := t.split.Load()
	if b.of.rate.Day && (!s.Shared || s.Alone()) {
		return untilReset(b.last)
	}
	if !s.Shared || s.Alone() && b.sh == nil {
		return untilToken(left-float64(n-1), b.of.rate.PerSecond)
	}
	if sh := b.share(); !sh.refusedN {
		sh.refusedN = true
		t.soon()
	}
	t.push(b)
	switch {
	case s.None:
		return time.Second
	case b.of.rate.Day:
		return b.quotaWait(n)
	case s.Alone():
		return untilToken(left-float64(n-1), b.of.rate.PerSecond)
	case b.sh.managed:
		return max(b.sh.next.Sub(b.last), shareTurn)
	}
	return max(untilToken(left-float64(n-1), b.of.rate.PerSecond), shareTurn)
}

// shareTurn is about how long it takes to be given what another replica does not need.
const shareTurn = 500 * time.Millisecond

// spent counts what was taken. b.mu is held.
func (b *bucket) spent(n int32) {
	b.sh.spentN += int64(n)
	if b.queued {
		return
	}
	b.of.table.push(b)
	if !b.sh.managed || b.of.long() {
		b.of.table.soon() // what is not told when this process is killed may pass again
	}
}

// push queues b for the next report. b.mu is held.
func (t *bucketTable) push(b *bucket) {
	if b.queued {
		return
	}
	b.queued = true
	t.dmu.Lock()
	t.dirty = append(t.dirty, b)
	t.dmu.Unlock()
}

func (t *bucketTable) soon() {
	if f := t.kick.Load(); f != nil {
		(*f)()
	}
}

// spread is a hash that all replicas agree on, so that the tokens that cannot be split evenly are handed out once.
func (b *bucket) spread() uint64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, s := range [2]string{b.of.wide, b.name} {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
	}
	return h ^ h>>32
}

// id is b's name in the store. A quota has another each day.
func (b *bucket) id() rates.ID {
	if b.of.rate.Day {
		return rates.IDOf(b.of.wide+" "+quota.Day(b.day).String(), b.name)
	}
	return rates.IDOf(b.of.wide, b.name)
}

// claim takes the share that is reserved for b in the store, if the store knows it. b.mu is held.
func (b *bucket) claim(t *bucketTable) bool {
	id := b.id()
	t.kmu.Lock()
	tokens, ok := t.known[id]
	if ok {
		delete(t.known, id)
		t.knows.Store(len(t.known) > 0)
	}
	t.kmu.Unlock()
	if !ok {
		return false
	}
	sh := b.share()
	sh.managed, sh.askedN = true, sh.askedN+1
	b.lim.SetBurstAt(b.last, max(b.of.rate.Burst, int(tokens)))
	b.lim.AllowN(b.last, -int(tokens))
	if tokens == 0 {
		t.soon()
	}
	return true
}

// evicted notes that b is gone though the store has a share of it for this replica. b.mu is held.
func (t *bucketTable) evicted(b *bucket) {
	if b.sh == nil || !b.sh.managed {
		return
	}
	t.kmu.Lock()
	if len(t.known) < knownMost {
		if t.known == nil {
			t.known = map[rates.ID]int64{}
		}
		t.known[b.id()] = 0
		t.knows.Store(true)
	}
	t.kmu.Unlock()
}

// shares is the App's side of the exchange: a rates.Source.
type shares struct{ a *App }

// Shares is what the replicas' exchange of shares is told and asks; see package rates. Without it every bucket is this
// replica's alone.
func (a *App) Shares() rates.Source { return shares{a} }

// Resplit is as rates.Source has it.
func (s shares) Resplit(split rates.Split) {
	t := s.a.buckets
	t.split.Store(&split)
	t.many.Store(split.Replicas > 1)
	t.gen.Add(1)
}

// Kick is as rates.Source has it.
func (s shares) Kick(f func()) { s.a.buckets.kick.Store(&f) }

// Known is as rates.Source has it.
func (s shares) Known(held map[rates.ID]int64) {
	t := s.a.buckets
	t.kmu.Lock()
	defer t.kmu.Unlock()
	if t.known == nil {
		t.known = map[rates.ID]int64{}
	}
	if len(t.known)+len(held) <= knownMost {
		maps.Copy(t.known, held)
	}
	t.knows.Store(len(t.known) > 0)
}

// Collect is as rates.Source has it.
func (s shares) Collect(now time.Time, most int, out []rates.Report) []rates.Report {
	t := s.a.buckets
	t.dmu.Lock()
	n := min(most, len(t.dirty))
	t.sent = append(t.sent[:0], t.dirty[:n]...)
	rest := append(t.spare[:0], t.dirty[n:]...)
	clear(t.dirty)
	t.dirty, t.spare = rest, t.dirty
	t.dmu.Unlock()
	kept := t.sent[:0]
	for _, b := range t.sent {
		b.mu.Lock()
		b.queued = false
		if !b.dead && b.sh != nil && b.gen != 0 {
			out = append(out, b.report(now))
			kept = append(kept, b)
		}
		b.mu.Unlock()
	}
	t.sent = kept
	return out
}

// report says what the store needs to know, and gives back what others need more. b.mu is held.
func (b *bucket) report(now time.Time) rates.Report {
	sh := b.sh
	if now.After(b.last) {
		b.last = now
	}
	// need is what it could use now. demand is what the rate follows: the more is asked for, the faster.
	dt := min(max(now.Sub(sh.at).Seconds(), 0.25), 2)
	need := float64(sh.askedN) / dt
	seen := float64(sh.askedN) + sh.demand*dt
	sh.demand += (need - sh.demand) * max(seen/(seen+10), dt/6)
	if sh.askedN == 0 && (b.last.Sub(sh.used) > 6*time.Second || sh.demand < 1e-3) {
		sh.demand = 0
	}
	tokens, limit := b.lim.TokensAt(b.last), float64(b.lim.Limit())
	r := rates.Report{
		ID: string(b.id()), Rate: b.of.wide, Name: b.name,
		PerSecond: b.of.rate.PerSecond, Burst: int64(b.of.rate.Burst), Fill: b.of.fill,
		Managed: sh.managed || sh.unheard, Lost: now.Sub(sh.lost) < 10*time.Second,
		Before: tokens + sh.back, Spent: sh.spentN, Demand: sh.demand, Need: need, Refused: sh.refusedN, Cap: int64(b.lim.Burst()),
	}
	if sh.starving {
		keep := 0.0
		if need > 0 {
			keep = math.Ceil(need*0.75) + 1
		}
		if surplus := int(tokens - keep); surplus > 0 {
			b.lim.AllowN(b.last, surplus)
			if !sh.managed {
				sh.back += float64(surplus)
			}
			tokens -= float64(surplus)
			b.sure = 0
		}
	}
	if part := tokens - math.Floor(tokens); limit == 0 && part > 0 && (sh.starving || sh.busy) {
		// A part of a token is of no use to a bucket that grows by whole ones.
		tokens = math.Floor(tokens)
		b.lim = rate.Limiter{}
		b.lim.SetBurstAt(time.Time{}, max(int(r.Cap), int(tokens), 1))
		b.lim.AllowN(b.last, -int(tokens))
		b.sure = 0
		if !sh.managed {
			sh.back += part
		}
	}
	if sh.starving || sh.busy {
		if want := 1.5 * sh.demand; want < limit {
			limit = want
			b.lim.SetLimitAt(b.last, rate.Limit(limit))
		}
	}
	r.Held, r.Current = max(tokens, 0), limit
	if b.of.rate.Day {
		r.Fill = max(quota.Day(b.day).End().Sub(b.last), 0) + time.Minute
	}
	sh.at = now
	if sh.askedN > 0 || sh.demand > 0 && (sh.refusedN || sh.busy || sh.starving) {
		sh.again = true // that it is asked no more is worth telling too
	}
	sh.askedN, sh.refusedN = 0, false
	return r
}

// Granted is as rates.Source has it.
func (s shares) Granted(now time.Time, grants []rates.Grant) {
	t := s.a.buckets
	for i, b := range t.sent {
		b.mu.Lock()
		if !b.dead && b.sh != nil {
			if grants != nil {
				b.granted(now, &grants[i])
			}
			if b.sh.again || grants == nil {
				b.sh.again = false
				t.push(b)
			}
		}
		b.mu.Unlock()
	}
	clear(t.sent)
	t.sent = t.sent[:0]
}

func (b *bucket) granted(now time.Time, g *rates.Grant) {
	sh := b.sh
	if now.After(b.last) {
		b.last = now
	}
	if !sh.managed && sh.unheard {
		sh.unheard = false
	}
	sh.managed, sh.back = true, 0
	sh.starving, sh.busy, sh.whole, sh.part = g.Starving, g.Contended, g.Whole, g.Part
	sh.next = now.Add(g.Wait)
	b.lim.SetLimitAt(b.last, rate.Limit(g.PerSecond))
	b.lim.SetBurstAt(b.last, max(int(g.Burst), 1))
	if g.Tokens > 0 {
		b.lim.AllowN(b.last, -int(g.Tokens))
	}
	b.sure = 0
}

// find is the bucket that a rate has for a name.
func (a *App) findBucket(now time.Time, k *keyedRate, name string, make bool) *bucket {
	if k.only != nil {
		k.only.mu.Lock()
		return k.only
	}
	key := k.key(a.hashOf(k.rate.Per, name))
	if !make && a.buckets.find(key) == nil {
		return nil
	}
	return a.buckets.get(now, key, k, name)
}

// Told is as rates.Source has it.
func (s shares) Told(now time.Time, rateID, name string, forgotten bool) (known bool) {
	t := s.a.buckets
	if rateID == "" {
		s.each(func(b *bucket) {
			if b.sh != nil && b.sh.managed {
				t.push(b)
			}
		})
		return true
	}
	k := s.a.rateOf(rateID)
	if k == nil {
		return false
	}
	b := s.a.findBucket(now, k, name, !forgotten)
	if b == nil {
		return true
	}
	defer b.mu.Unlock()
	if b.of.rate.Day {
		if now.After(b.last) {
			b.last = now
		}
		b.newDay()
	}
	if b.dead {
		return true
	}
	if now.After(b.last) {
		b.last = now
	}
	if forgotten {
		if b.sh != nil && b.sh.managed && !b.queued && now.Sub(b.sh.used) > b.of.fill {
			b.sh, b.gen = nil, 0 // its even part, full
		}
		return true
	}
	b.follow(t, 0)
	b.share().starving = true
	t.push(b)
	return true
}

// each visits all buckets, each locked.
func (s shares) each(visit func(b *bucket)) {
	t := s.a.buckets
	one := func(b *bucket) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.dead {
			visit(b)
		}
	}
	for _, k := range s.a.policy.Load().rates {
		if k.only != nil {
			one(k.only)
		}
	}
	if set := s.a.aims.Load(); set != nil {
		for i := range set.list {
			if k := set.list[i].rate; k != nil {
				one(k.only)
			}
		}
	}
	for i := range t.shards {
		sets := *t.shards[i].sets.Load()
		for x := range sets {
			for w := range sets[x] {
				if b := sets[x][w].b.Load(); b != nil {
					one(b)
				}
			}
		}
	}
}

// Away is as rates.Source has it: what the pool gathered is taken at the replica's own part of the rate, as long as
// nobody hands it out.
func (s shares) Away(now time.Time, away bool) {
	s.each(func(b *bucket) {
		if b.sh == nil || !b.sh.managed {
			return
		}
		if now.After(b.last) {
			b.last = now
		}
		switch {
		case away && b.lim.Limit() == 0 && b.sh.part > 0:
			b.set(b.sh.part*b.of.rate.PerSecond, b.lim.Burst())
		case !away:
			s.a.buckets.push(b)
		}
	})
}

// Forget is as rates.Source has it.
func (s shares) Forget(now time.Time) {
	s.each(func(b *bucket) {
		if b.sh == nil || !b.sh.managed {
			return
		}
		if now.After(b.last) {
			b.last = now
		}
		b.drain()
		b.sh.spentN = 0
		s.a.buckets.push(b)
	})
}

// Lost is as rates.Source has it.
func (s shares) Lost(now time.Time) {
	s.each(func(b *bucket) {
		if b.sh != nil && b.sh.managed {
			b.sh.lost = now
			s.a.buckets.push(b)
		}
	})
}
