package watch

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/pushguard/pushguard/limiter/detect"
)

// cells are the token buckets of what is contained, one for each combination
// held; and one more for a combination whose excess is a few payloads, for what
// is not of these: its ordinary traffic goes on, but can not hide a new excess.
//
// They are bounded by maxCells; combinations beyond it share one. What was not
// asked for in idle is forgotten, which is no loss: its bucket is full again.
type cells struct {
	shards  [64]cellShard
	rest    cell
	refused atomic.Int64 // since it was last asked for
	// messages are those of what was refused, since the process began.
	messages atomic.Int64
}

type cellShard struct {
	mu    sync.Mutex
	byKey map[cellKey]*cell
}

type cellKey struct {
	series int32
	other  bool
}

const (
	maxCells = 4096
	idle     = 10 * time.Minute
)

// The bucket of a culprit holds fewSeconds of its rate, or what it usually sends
// at once if that is more; that of the ordinary part otherSeconds, because ordinary traffic comes in bursts.
const (
	fewSeconds   = 5
	otherSeconds = 120
)

// cell is one bucket. It counts messages.
type cell struct {
	mu   sync.Mutex
	last time.Time
	lim  *rate.Limiter
	rate float64
}

func (cs *cells) get(k cellKey) *cell {
	sh := &cs.shards[uint32(k.series)%uint32(len(cs.shards))]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.byKey[k]
	switch {
	case c != nil:
		return c
	case len(sh.byKey) >= maxCells/len(cs.shards):
		return &cs.rest
	case sh.byKey == nil:
		sh.byKey = map[cellKey]*cell{}
	}
	c = &cell{}
	sh.byKey[k] = c
	return c
}

// take says whether a publish of so many messages fits into the combination's rate.
func (cs *cells) take(now time.Time, h detect.Hold, other bool, messages int64) bool {
	n := int(max(messages, 1))
	c := cs.get(cellKey{h.Series, other})
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.last) {
		c.last = now // a time that lies before makes no tokens
	}
	allowed, seconds := h.Rate, float64(fewSeconds)
	if other {
		allowed, seconds = h.Ordinary, otherSeconds
	}
	burst := max(int(math.Ceil(max(allowed*seconds, h.Burst))), 1, n)
	switch {
	case c.lim == nil:
		c.lim = rate.NewLimiter(rate.Limit(allowed), burst)
		c.rate = allowed
	case math.Abs(allowed-c.rate) > c.rate/100 || burst > c.lim.Burst():
		c.lim.SetLimitAt(c.last, rate.Limit(allowed))
		c.lim.SetBurstAt(c.last, burst)
		c.rate = allowed
	}
	ok := c.lim.AllowN(c.last, n)
	if !ok {
		cs.refused.Add(1)
		cs.messages.Add(messages)
	}
	return ok
}

// sweep forgets what is idle, or everything.
func (cs *cells) sweep(now time.Time, all bool) {
	for i := range cs.shards {
		sh := &cs.shards[i]
		sh.mu.Lock()
		for k, c := range sh.byKey {
			c.mu.Lock()
			if all || now.Sub(c.last) >= idle {
				delete(sh.byKey, k)
			}
			c.mu.Unlock()
		}
		sh.mu.Unlock()
	}
}

// len is how many combinations have a bucket of their own.
func (cs *cells) len() (n int) {
	for i := range cs.shards {
		cs.shards[i].mu.Lock()
		n += len(cs.shards[i].byKey)
		cs.shards[i].mu.Unlock()
	}
	return n
}
