package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/pusher"
	"github.com/pushguard/pushguard/quota/delayed"
)

// heldPublish is a publish on the shelf. Its fields are a stored format: other
// releases read it, so they are only ever added to.
type heldPublish struct {
	App    string    `json:"app"`
	Caller string    `json:"caller"`
	At     time.Time `json:"at"`   // when it was answered
	Body   []byte    `json:"body"` // as POST /apps/ID/events takes it, signed by nobody
	// Refresh: nobody published it; it stands for publishes that were shed.
	Refresh bool `json:"refresh,omitempty"`
}

// HeldStats count what happened to publishes that were held.
type HeldStats struct {
	Held     int64 // put on the shelf
	Replaced int64 // of those, the ones that a newer one replaced, so that they were never sent
	Sent     int64 // sent at their window's end
	Again    int64 // of those, claimed before by a replica that died; they may have arrived twice
	Expired  int64 // not sent: too old when they could have been
	Dropped  int64 // not sent: Pusher refused them, or their app is gone
	Unknown  int64 // sent, fate unknown: not repeated
	NotHeld  int64 // sent at once or refused, because the store did not take them
	NoRoom   int64 // of those, the ones for which there was no room in bytes, and replacements that passed the bound
	// Refreshes are refresh events sent for channels of which publishes were shed;
	// they are not in Held and Sent.
	Refreshes int64
}

type heldCounts struct {
	held, replaced, sent, again, expired, dropped, unknown, notHeld, noRoom, refreshes atomic.Int64
}

// Held reads the counters of held publishes.
func (s *Stats) Held() HeldStats {
	h := &s.heldCounts
	return HeldStats{h.held.Load(), h.replaced.Load(), h.sent.Load(), h.again.Load(), h.expired.Load(), h.dropped.Load(), h.unknown.Load(), h.notHeld.Load(), h.noRoom.Load(), h.refreshes.Load()}
}

const (
	// defaultHeldExpiry also goes for what is held for an app that is gone.
	defaultHeldExpiry = 10 * time.Minute
	// claimFor is how long a replica may take to send what it claimed; it is
	// longer than any upstream timeout. After it another replica sends.
	claimFor = 30 * time.Second
	// putTimeout bounds how long a caller waits for the store.
	putTimeout = 2 * time.Second
	// releaseEvery is how often the shelf is looked at while something may be due.
	// A window's end is late by that much at the most; by lookEvery, how often it
	// is looked at otherwise, if the replica that held the publish has died.
	releaseEvery = 50 * time.Millisecond
	lookEvery    = time.Second
	lookOn       = 2 * time.Second // for how long it is looked at often after something was due
	releaseBatch = 256
)

// heldID is by what a newer publish replaces an older one: app, event, channels.
func heldID(app string, p *pusher.Publish, group [2]uint64) string {
	h := sha256.New()
	for _, part := range [...][]byte{[]byte(app), p.Name} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	for _, ch := range p.Channels {
		fmt.Fprintf(h, "%d:", len(ch))
		h.Write(ch)
	}
	fmt.Fprintf(h, "%x", group)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

// hold puts a conflated publish where it survives this process, before it is
// answered. It reports false when that could not be had.
func (p *Proxy) hold(j *job, pr *principal, it *item, now time.Time) bool {
	a, counts := pr.app, &p.stats.heldCounts
	if a.Shelf == nil || it.publish == nil || it.publish.Alone {
		counts.notHeld.Add(1)
		return false
	}
	id, rec := heldAs(pr, it, now)
	if !p.roomToHold(a, pr.caller.Name(), id, rec, it.verdict.Due, now) {
		counts.notHeld.Add(1)
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
	defer cancel()
	replaced, err := a.Shelf.Put(ctx, id, it.verdict.Due, rec)
	if err == nil {
		counts.held.Add(1)
		if replaced {
			counts.replaced.Add(1)
		}
		return true
	}
	counts.notHeld.Add(1)
	if p.holdFails.CompareAndSwap(false, true) {
		p.log.Warn("store error: a publish could not be held for conflation; such publishes are sent at once until the store answers", "app", a.ID, "err", err)
	}
	return false
}

func heldAs(pr *principal, it *item, now time.Time) (id string, rec []byte) {
	body := it.publish.Raw // byte for byte, where all of it stood in the body
	if body == nil {
		body = pusher.AppendEvent(nil, it.publish)
	}
	rec, err := json.Marshal(heldPublish{App: pr.app.ID, Caller: pr.caller.Name(), At: now, Body: body})
	if err != nil {
		panic(err) // strings, a time and bytes
	}
	return heldID(pr.app.ID, it.publish, it.claim.Group), rec
}

// swapTimeout bounds how long the first of a burst waits to hear whether
// another replica holds an older value. Where the store is slower the first
// goes out, and the older value may arrive after it.
const swapTimeout = 100 * time.Millisecond

// overtakes reports whether another replica holds an older value of what would
// be the first of a burst here, or a repeat. Then it has taken that one's place
// on the shelf, for the newest must arrive last; a repeat waits for no Flight.
func (p *Proxy) overtakes(pr *principal, it *item, now time.Time) bool {
	a := pr.app
	first := it.verdict.Outcome == limiter.Sent && it.verdict.First()
	// A, B, A within a window must end with A, although A was delivered before, or is under way as far as this
	// replica has heard: its caller may have its answer, and B been held, before the store knows that it arrived.
	repeats := it.verdict.Outcome == limiter.Deduplicated && it.claim.Conflated()
	if !first && !repeats || it.publish.Alone || a.Shelf == nil || !a.Shelf.MayHoldOlder() || p.holdFails.Load() {
		return false
	}
	id, rec := heldAs(pr, it, now)
	ctx, cancel := context.WithTimeout(context.Background(), swapTimeout)
	defer cancel()
	swapped, err := a.Shelf.Swap(ctx, now, id, rec)
	if err != nil && p.holdFails.CompareAndSwap(false, true) {
		p.log.Warn("store timeout: sending the first publish of each burst without checking for a held value", "app", a.ID, "err", err)
	}
	if !swapped {
		return false
	}
	p.stats.heldCounts.held.Add(1)
	p.stats.heldCounts.replaced.Add(1)
	return true
}

// Release sends what an account's shelf holds when its windows end, its own and
// what other replicas left, until ctx ends. One goroutine an account runs it.
func (p *Proxy) Release(ctx context.Context, shelf *delayed.Queue) {
	t := time.NewTicker(releaseEvery)
	defer t.Stop()
	var failing bool
	var looked, found time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := p.now()
		if now.Sub(shelf.Due()) > lookOn && now.Sub(found) > lookOn && now.Sub(looked) < lookEvery && !now.Before(looked) {
			continue
		}
		looked = now
		for {
			n, err := p.releaseDue(ctx, shelf)
			if err != nil && !failing && ctx.Err() == nil {
				p.log.Warn("store error: held publishes cannot be read; they stay in the store", "err", err)
			}
			failing = err != nil
			if n > 0 {
				found = now
			}
			if err == nil {
				p.holdFails.Store(false)
			}
			if n < releaseBatch || ctx.Err() != nil {
				break
			}
		}
	}
}

// releaseDue sends one round of what is due.
func (p *Proxy) releaseDue(ctx context.Context, shelf *delayed.Queue) (int, error) {
	account := p.heldOf(shelf.Account())
	now := p.now()
	call, cancel := context.WithTimeout(ctx, putTimeout)
	claimed, err := shelf.Claim(call, now, now.Add(claimFor), releaseBatch)
	cancel()
	if err != nil || len(claimed) == 0 {
		return 0, err
	}
	var mu sync.Mutex
	var done, back []string
	var all sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, c := range claimed {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			over := p.releaseOne(c.Body, c.Again, now)
			mu.Lock()
			defer mu.Unlock()
			if over {
				account.over(c.ID, now)
				done = append(done, c.Token)
			} else {
				back = append(back, c.Token)
			}
		})
	}
	all.Wait()
	// Told to the store whether or not this process is ending: what was sent must
	// not be sent again.
	tell, cancel := context.WithTimeout(context.WithoutCancel(ctx), putTimeout)
	defer cancel()
	if len(done) > 0 {
		err = shelf.Settle(tell, done...)
	}
	if len(back) > 0 {
		err = errors.Join(err, shelf.Return(tell, p.now().Add(time.Second), back...))
	}
	return len(claimed), err
}

// releaseOne sends one held publish. It reports false when it is to be tried
// again: nothing went out, and it is not too old.
func (p *Proxy) releaseOne(body []byte, again bool, now time.Time) (over bool) {
	counts := &p.stats.heldCounts
	var rec heldPublish
	if err := json.Unmarshal(body, &rec); err != nil {
		counts.dropped.Add(1)
		p.log.Error("held publish dropped: its stored form cannot be read", "err", err)
		return true
	}
	a := p.table.Load().apps[rec.App]
	expiry := defaultHeldExpiry
	if a != nil && a.HeldExpiry > 0 {
		expiry = a.HeldExpiry
	}
	expired := now.Sub(rec.At) > expiry
	if a == nil {
		if expired {
			counts.dropped.Add(1)
			p.log.Warn("held publish dropped: its app is no longer in the config", "app", rec.App, "held_at", rec.At)
		}
		return expired // another replica may have the app
	}
	j := p.jobs.Get().(*job)
	defer func() {
		if r := recover(); r != nil {
			p.stats.panics.Add(1)
			counts.unknown.Add(1)
			p.log.Error("panic while sending a held publish; it is not tried again", "panic", r)
			over = true
			return
		}
		j.release()
		p.jobs.Put(j)
	}()
	if err := j.query.Parse(nil); err != nil {
		panic(err)
	}
	events, e := j.decoder.Events(rec.Body, &j.query, &a.Limits)
	if e != nil {
		counts.dropped.Add(1)
		p.log.Warn("held publish dropped: the app's limits no longer allow it", "app", rec.App, "why", e.Text)
		return true
	}
	pr := &principal{app: a}
	if !rec.Refresh {
		pr.caller = a.Limiter.Caller(rec.Caller)
	}
	j.open(pr, events)
	it := &j.items[0]
	it.claim.Late, it.claim.HeldAt = true, rec.At
	if rec.Refresh {
		it.claim.Refresh, it.claim.Rule = true, a.Limiter.DefaultRule()
	}
	if p.judge(j, pr, now) == 0 {
		if expired {
			counts.expired.Add(1)
		}
		return expired
	}
	got := p.send(j, pr, false, 1, outgoing{method: "POST", path: a.eventsPath, query: &j.query, body: rec.Body}, now)
	switch {
	case got.fate == limiter.Delivered && rec.Refresh:
		counts.refreshes.Add(1)
	case got.fate == limiter.Delivered:
		counts.sent.Add(1)
		if again {
			counts.again.Add(1)
		}
	case got.fate == limiter.NotSent || got.quotaSpent:
		if expired {
			counts.expired.Add(1)
		}
		return expired
	case got.fate == limiter.Unknown:
		counts.unknown.Add(1)
	default:
		counts.dropped.Add(1)
		p.log.Warn("held publish dropped: Pusher refused it", "app", rec.App, "status", got.status)
	}
	return true
}
