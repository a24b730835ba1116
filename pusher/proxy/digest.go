package proxy

import (
	"context"
	"encoding/json"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/pusher"
)

// RefreshConfig is the event that tells the clients of a channel that they
// missed something: they fetch their state, and the red dot lights.
type RefreshConfig struct {
	Event, Data string
	// Every is how often a channel gets it at most.
	Every time.Duration
}

// refreshes knows which channels have a refresh event coming, so that of many
// publishes that are shed only one an interval and channel costs a round trip
// to the store. It is bounded: a channel without room is asked about each time.
type refreshes struct {
	shards [16]refreshShard
	broke  atomic.Int64 // unix ns until which none can be paid
}

type refreshShard struct {
	mu  sync.Mutex
	due map[uint64]int64 // channel → unix ns
}

const (
	maxRefreshing = 1 << 16
	// refreshSkew is how far the replicas' clocks may be apart: this much before
	// it is due another replica may already have sent the event, and what is shed
	// then is not told by it.
	refreshSkew = time.Second
	// brokeFor is how long it is believed that the share for refresh events is
	// spent.
	brokeFor = time.Second
)

var channelSeed = maphash.MakeSeed()

func (r *refreshes) covered(now time.Time, ch string) bool {
	h := maphash.String(channelSeed, ch)
	s := &r.shards[h%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	return now.UnixNano() < s.due[h]-int64(refreshSkew)
}

func (r *refreshes) cover(now, due time.Time, ch string) {
	h := maphash.String(channelSeed, ch)
	s := &r.shards[h%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.due == nil {
		s.due = map[uint64]int64{}
	}
	if len(s.due) >= maxRefreshing/16 {
		for k, at := range s.due {
			if at < now.UnixNano() {
				delete(s.due, k)
			}
		}
	}
	if len(s.due) < maxRefreshing/16 {
		s.due[h] = due.UnixNano()
	}
}

// digest sees to it that each channel of a publish that is shed gets a refresh
// event, and reports false when that cannot be promised. The event is in the
// store before the answer, one replica sends it, and a channel gets at most one
// in an interval: at once if the last one is that long ago, else at its end.
func (p *Proxy) digest(a *App, it *item, now time.Time) bool {
	cfg := a.Refresh
	if cfg == nil || a.Shelf == nil || it.publish == nil || it.publish.Encrypted {
		return false // what the clients of an encrypted channel cannot decrypt tells them nothing
	}
	for _, ch := range it.publish.Channels {
		if pusher.IsCache(ch) {
			return false // it would take the place of the value that is kept for later subscribers
		}
	}
	afforded := false
	for i, ch := range it.claim.Channels {
		if a.refreshes.covered(now, ch) {
			continue
		}
		event := pusher.Publish{Name: []byte(cfg.Event), Data: []byte(cfg.Data), Channels: it.publish.Channels[i : i+1]}
		if !afforded {
			if now.UnixNano() < a.refreshes.broke.Load() {
				return false
			}
			ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
			afforded = a.Limiter.AffordsRefresh(ctx, now, a.price(&event, it.claim.Channels[i:i+1], a.deliveries(it.claim.Channels[i:i+1]), bearsCall))
			cancel()
			if !afforded {
				a.refreshes.broke.Store(now.Add(brokeFor).UnixNano())
				return false
			}
		}
		rec, err := json.Marshal(heldPublish{App: a.ID, At: now, Body: pusher.AppendEvent(nil, &event), Refresh: true})
		if err != nil {
			panic(err) // strings, a time and bytes
		}
		ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
		due, err := a.Shelf.Pace(ctx, now, heldID(a.ID, &event, [2]uint64{}), cfg.Every, rec)
		cancel()
		if err != nil {
			p.stats.heldCounts.notHeld.Add(1)
			if p.holdFails.CompareAndSwap(false, true) {
				p.log.Warn("store error: a refresh event could not be held; publishes that would be digested are refused until the store answers", "app", a.ID, "err", err)
			}
			return false
		}
		a.refreshes.cover(now, due, ch)
	}
	return true
}
