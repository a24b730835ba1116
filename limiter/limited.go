package limiter

import (
	"cmp"
	"slices"
	"time"
)

// LimitedKey is a bucket that has less than half of its tokens.
type LimitedKey struct {
	ID        string // in the store
	Of        string // whose rate it is: a rule, a caller, the app
	Rate      string
	Name      string // what the bucket counts
	PerSecond float64
	Burst     int64
	Left      float64 // tokens of all replicas, as of the last exchange
	// What this replica holds.
	ShareLeft      float64
	SharePerSecond float64
	Shared         bool // the store moves shares by demand
}

// LimitedKeys lists at most most of them, those with least left first. It visits every bucket, so it is not for the hot
// path.
func (a *App) LimitedKeys(now time.Time, most int) []LimitedKey {
	var out []LimitedKey
	shares{a}.each(func(b *bucket) {
		if b.gen == 0 {
			return
		}
		burst := int64(b.of.rate.Burst)
		left := b.lim.TokensAt(now)
		k := LimitedKey{Of: b.of.whose, Rate: b.of.rate.String(), Name: b.name, PerSecond: b.of.rate.PerSecond, Burst: burst,
			Left: left, ShareLeft: left, SharePerSecond: float64(b.lim.Limit())}
		if b.sh != nil && b.sh.managed {
			k.Shared = true
			k.Left = min(b.sh.whole+k.PerSecond*now.Sub(b.sh.at).Seconds(), float64(burst))
		} else if n := b.of.table.split.Load().Replicas; n > 1 {
			k.Left = min(left*float64(n), float64(burst))
		}
		if k.Left >= float64(burst)/2 {
			return
		}
		if k.Shared {
			k.ID = string(b.id())
		}
		out = append(out, k)
		if len(out) >= 2*most+64 {
			out = leastFirst(out)[:most]
		}
	})
	return leastFirst(out)[:min(most, len(out))]
}

func leastFirst(keys []LimitedKey) []LimitedKey {
	slices.SortFunc(keys, func(a, b LimitedKey) int {
		return cmp.Or(cmp.Compare(a.Left/float64(a.Burst), b.Left/float64(b.Burst)), cmp.Compare(a.Name, b.Name))
	})
	return keys
}
