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
	byKey   atomic.Pointer[map[cellKey]*cell]
	mu      sync.Mutex // of writing byKey
	rest    *cell
	refused atomic.Int64 // since it was last asked for
}

type cellKey struct {
	series int32
	other  bool
}

const (
	maxCells = 4096
	idle     = 10 * time.Minute
)

// The bucket of a culprit holds fewSeconds of its rate; that of the ordinary
// part otherSeconds, because ordinary traffic comes in bursts.
const (
	fewSeconds   = 5
	otherSeconds = 120
)

// cell is one bucket. It counts messages of mean price, as the detector does.
type cell struct {
	mu   sync.Mutex
	last time.Time
	lim  *rate.Limiter
	rate float64
}

func (cs *cells) init() {
	cs.byKey.Store(&map[cellKey]*cell{})
	cs.rest = &cell{}
}

func (cs *cells) get(k cellKey) *cell {
	if c := (*cs.byKey.Load())[k]; c != nil {
		return c
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	old := *cs.byKey.Load()
	if c := old[k]; c != nil {
		return c
	}
	if len(old) >= maxCells {
		return cs.rest
	}
	grown := make(map[cellKey]*cell, len(old)+1)
	for k, v := range old {
		grown[k] = v
	}
	c := &cell{}
	grown[k] = c
	cs.byKey.Store(&grown)
	return c
}

// take says whether n more fit into the combination's rate.
func (cs *cells) take(now time.Time, h detect.Hold, other bool, n int) bool {
	c := cs.get(cellKey{h.Series, other})
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.After(c.last) {
		c.last = now // a time that lies before makes no tokens
	}
	seconds := float64(fewSeconds)
	if other {
		seconds = otherSeconds
	}
	burst := max(int(math.Ceil(h.Rate*seconds)), 1, n)
	switch {
	case c.lim == nil:
		c.lim = rate.NewLimiter(rate.Limit(h.Rate), burst)
		c.rate = h.Rate
	case math.Abs(h.Rate-c.rate) > c.rate/100 || burst > c.lim.Burst():
		c.lim.SetLimitAt(c.last, rate.Limit(h.Rate))
		c.lim.SetBurstAt(c.last, burst)
		c.rate = h.Rate
	}
	ok := c.lim.AllowN(c.last, n)
	if !ok {
		cs.refused.Add(1)
	}
	return ok
}

// sweep forgets what is idle, and everything when nothing is held any more.
func (cs *cells) sweep(now time.Time, all bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	old := *cs.byKey.Load()
	if len(old) == 0 {
		return
	}
	kept := map[cellKey]*cell{}
	if !all {
		for k, c := range old {
			c.mu.Lock()
			if now.Sub(c.last) < idle {
				kept[k] = c
			}
			c.mu.Unlock()
		}
	}
	cs.byKey.Store(&kept)
}
