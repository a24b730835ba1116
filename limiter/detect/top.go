package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// By is what Top tells apart.
type By string

const (
	ByCaller  By = "caller"
	ByEvent   By = "event"
	ByChannel By = "channel"
	ByPayload By = "payload"
	ByAll     By = "all" // caller, event and channel together
)

// Count is one line of Top.
type Count struct {
	// Key is the caller, event, channel pattern, or payload digest in
	// hexadecimal; with ByAll all three, separated by spaces.
	Key string
	// Count is how often, and at most Error less.
	Count, Error uint64
	// Share is Count over everything counted in the window, 0 to 1.
	Share float64
}

// Top lists what was sent most often in the last minute (to 5 s), or in the
// last ten (to a minute) when window is more than one minute. Counts by
// caller, event and channel are exact, but for what is counted under Any
// since it was too much to tell apart: that is the Error of every line.
// Payloads are of the last one to two minutes and carry their own error; of the
// other replicas' only the heaviest are known, so a light one may count too low.
func (d *Detector) Top(by By, window time.Duration, limit int) []Count {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.rates.all()
	counts := map[string]*Count{}
	put := func(key string, n, err uint64) {
		if n == 0 {
			return
		}
		c := counts[key]
		if c == nil {
			c = &Count{Key: key}
			counts[key] = c
		}
		c.Count += n
		c.Error += err
	}
	in := func(s *series) uint64 {
		if window <= time.Minute {
			return sum32(s.recent[:])
		}
		return sum32(s.longer[:])
	}
	var all, folded uint64
	own := map[*series]uint64{}
	for _, s := range list {
		if s.whole == nil {
			all += in(s)
			if by == ByCaller {
				put(s.caller, in(s), 0)
			}
			continue
		}
		n := in(s)
		own[s.whole] += n
		if s.channel == Any {
			folded += n
		}
		switch by {
		case ByEvent:
			put(s.event, n, 0)
		case ByChannel:
			put(s.channel, n, 0)
		case ByAll:
			put(s.caller+" "+s.event+" "+s.channel, n, 0)
		}
	}
	var lost uint64 // counted for a caller only
	for _, s := range list {
		if s.whole == nil {
			lost += in(s) - min(in(s), own[s])
		}
	}
	switch by {
	case ByPayload:
		payloads, _ := d.allPayloads()
		for _, h := range payloads {
			put(fmt.Sprintf("%016x", h.digest), uint64(h.count), uint64(h.error))
		}
	case ByEvent:
		put(Any, lost, 0)
	case ByChannel, ByAll:
		put(Any, lost, 0)
		lost += folded
	}
	out := make([]Count, 0, len(counts))
	for _, c := range counts {
		if by != ByCaller && by != ByPayload && c.Key != Any {
			c.Error = lost
		}
		if all > 0 {
			c.Share = float64(c.Count) / float64(all)
		}
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Key, b.Key))
	})
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out
}

// Delta is what one replica counted for one combination since its last
// Export.
type Delta struct {
	Caller, Event, Channel string
	Count                  int64
}

// Export takes out what was observed here since the last Export, up to the
// last Tick, for the other replicas' Import. Only combinations that were seen
// are in it, and no more than limit of them (0: all), the busiest first; the
// rest waits for the next Export.
func (d *Detector) Export(limit int) []Delta {
	d.mu.Lock()
	defer d.mu.Unlock()
	var seen []*series
	for _, s := range d.rates.all() {
		if s.delta > 0 {
			seen = append(seen, s)
		}
	}
	if limit > 0 && len(seen) > limit {
		slices.SortFunc(seen, func(a, b *series) int { return cmp.Compare(b.delta, a.delta) })
		seen = seen[:limit]
	}
	out := make([]Delta, 0, len(seen))
	for _, s := range seen {
		out = append(out, Delta{s.caller, s.event, s.channel, s.delta})
		s.delta = 0
	}
	return out
}

// Import counts what another replica exported, at the next Tick. It is not
// exported again.
func (d *Detector) Import(deltas []Delta) {
	for i := range deltas {
		x := &deltas[i]
		s := d.rates.find(&Key{Caller: x.Caller, Event: x.Event, Channel: x.Channel})
		s.remote.Add(x.Count)
	}
}
