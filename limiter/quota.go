package limiter

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// A quota is a Rate with Day set: so many publishes, or messages as billed, from 00:00 to 24:00 UTC. Its bucket holds the
// whole at midnight and does not fill.

var quotaForm = regexp.MustCompile(`^\s*([0-9_]+)\s*(messages|publishes)?\s*/\s*([a-z]+)\s*(?:(messages|publishes)\s*)?(?:per\s+([a-z]+)(?:\s+(\S.*?))?)?\s*$`)

// ParseQuota reads "5000/day per channel", "20000 messages/day per caller", "5000/day per channel /^canvas-(.+?)-/" or
// "5000/day per channel canvas-(*)-*".
func ParseQuota(s string) (Rate, error) {
	bad := func(format string, args ...any) (Rate, error) {
		return Rate{}, fmt.Errorf(`quota %q: %s (want for example "5000/day per channel" or "20000 messages/day per caller")`, s, fmt.Sprintf(format, args...))
	}
	m := quotaForm.FindStringSubmatch(s)
	if m == nil {
		return bad("not a quota")
	}
	if m[3] != "day" && m[3] != "d" {
		return bad("it is counted per day (UTC), not per %s; for another time use rate", m[3])
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(m[1], "_", ""), 10, 64)
	if err != nil || n < 1 || n > maxBurst {
		return bad("the count must be from 1 to %d", maxBurst)
	}
	r := Rate{Burst: int(n), Day: true, Messages: m[2] == "messages" || m[4] == "messages"}
	if m[5] != "" {
		i := slices.Index(perNames[:], m[5])
		if i < 0 {
			return bad("per must be app, caller, event or channel")
		}
		r.Per = Per(i)
	}
	if r.Part = m[6]; r.Part != "" {
		if r.Per != PerChannel {
			return bad("only a channel's name has parts: per channel %s", r.Part)
		}
		if _, err := compilePart(r.Part); err != nil {
			return bad("%s", err)
		}
	}
	return r, nil
}

func (r Rate) quotaString() string {
	s := strconv.Itoa(r.Burst)
	if r.Messages {
		s += " messages"
	}
	s += "/day"
	if r.Per != PerApp {
		s += " per " + r.Per.String()
	}
	if r.Part != "" {
		s += " " + r.Part
	}
	return s
}

// part finds the piece of a channel's name that a quota counts by.
type part struct {
	// A pattern like canvas-(*)-*: what stands after prefix, up to the first until; empty: to the end.
	prefix, until string
	re            *regexp.Regexp // not nil: its one group
}

var errGroups = errors.New("the pattern must have exactly one group: /^canvas-(.+?)-/ or canvas-(*)-*")

// compilePart reads /a regular expression with one group/ or a glob with one group, (*).
func compilePart(text string) (*part, error) {
	if strings.HasPrefix(text, "/") {
		if len(text) < 3 || !strings.HasSuffix(text, "/") {
			return nil, errors.New("a regular expression begins and ends with a slash: /^canvas-(.+?)-/")
		}
		re, err := regexp.Compile(text[1 : len(text)-1])
		if err != nil {
			return nil, fmt.Errorf("the regular expression cannot be read: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		}
		if re.NumSubexp() != 1 {
			return nil, fmt.Errorf("the regular expression has %d groups; it must have exactly one, as /^canvas-(.+?)-/; (?:…) is no group", re.NumSubexp())
		}
		return &part{re: re}, nil
	}
	open, end := strings.IndexByte(text, '('), strings.IndexByte(text, ')')
	if strings.Count(text, "(") != 1 || strings.Count(text, ")") != 1 || end < open {
		return nil, errGroups
	}
	before, group, after := text[:open], text[open+1:end], text[end+1:]
	if group == "" || strings.ContainsAny(text, " \t/") {
		return nil, errGroups
	}
	if group == "*" && !strings.ContainsAny(before, "*?") && (after == "" || strings.HasSuffix(after, "*") && !strings.ContainsAny(after[:len(after)-1], "*?") && after != "*") {
		return &part{prefix: before, until: strings.TrimSuffix(after, "*")}, nil
	}
	quote := strings.NewReplacer(`\*`, `.*?`, `\?`, `.`)
	re, err := regexp.Compile("^" + quote.Replace(regexp.QuoteMeta(before)) + "(" + quote.Replace(regexp.QuoteMeta(group)) + ")" + quote.Replace(regexp.QuoteMeta(after)) + "$")
	if err != nil {
		return nil, errGroups
	}
	return &part{re: re}, nil
}

// of is the piece of name; not ok: the name has none, and the quota does not count it.
func (p *part) of(name string) (piece string, ok bool) {
	if p.re != nil {
		at := p.re.FindStringSubmatchIndex(name)
		if at == nil || at[2] < 0 {
			return "", false
		}
		return name[at[2]:at[3]], true
	}
	rest, ok := strings.CutPrefix(name, p.prefix)
	if !ok {
		return "", false
	}
	if p.until == "" {
		return rest, true
	}
	piece, _, ok = strings.Cut(rest, p.until)
	return piece, ok
}

// tokens is what a claim takes of each bucket of the rate.
func (k *keyedRate) tokens(c *Claim) int32 {
	if !k.rate.Messages {
		return 1
	}
	return k.tokensOf(c, c.Cost)
}

func (k *keyedRate) tokensOf(c *Claim, cost int64) int32 {
	if k.rate.Per == PerChannel && len(c.Channels) > 1 {
		n := int64(len(c.Channels))
		cost = (cost + n - 1) / n
	}
	return int32(min(max(cost, 0), math.MaxInt32))
}

// newDay has the bucket of a quota hold the whole again when its day is over. b.mu is held.
func (b *bucket) newDay() {
	if day := int32(quota.DayOf(b.last)); day != b.day {
		b.day, b.gen, b.sh, b.sure = day, 0, nil, 0
	}
}

// quotaWait is when a quota that has too few tokens may have them. b.mu is held.
func (b *bucket) quotaWait(n int32) time.Duration {
	if b.sh != nil && b.sh.managed && !b.of.table.split.Load().Alone() && b.sh.whole >= float64(n) {
		return shareTurn // another replica holds them
	}
	return untilReset(b.last)
}

// partly asks a quota by a part of the channel's name: each part once, in the order of locking.
func (j *judgement) partly(k *keyedRate) Outcome {
	var room [few]channelKey
	keys := j.a.partKeys(k, j.c, room[:0])
	for _, key := range keys {
		piece, _ := k.part.of(j.c.Channels[key.index])
		if o := j.keyed(k, key.hash, piece); o != Sent {
			j.v.Channel = key.index
			return o
		}
	}
	return Sent
}

func (a *App) partKeys(k *keyedRate, c *Claim, keys []channelKey) []channelKey {
	for i, name := range c.Channels {
		if piece, ok := k.part.of(name); ok {
			keys = append(keys, channelKey{a.hashOf(PerChannel, piece), i})
		}
	}
	if len(keys) > 1 {
		slices.SortFunc(keys, func(a, b channelKey) int {
			if a.hash < b.hash {
				return -1
			}
			return 1
		})
		keys = slices.CompactFunc(keys, func(a, b channelKey) bool { return a.hash == b.hash })
	}
	return keys
}

// requota corrects what a claim took of its rule's quotas once its price is known: nothing where it was not sent.
func (a *App) requota(now time.Time, c *Claim, r *CompiledRule, sent bool, actual int64) {
	for per, list := range r.rates {
		for _, k := range list {
			if !k.rate.Day {
				continue
			}
			took, want := k.tokens(c), int32(0)
			switch {
			case sent && k.rate.Messages:
				want = k.tokensOf(c, actual)
			case sent:
				want = took
			}
			if took == want {
				continue
			}
			give := func(hash uint64, name string) {
				b := k.only
				if b == nil {
					b = a.buckets.get(now, k.key(hash), k, name)
				} else {
					b.mu.Lock()
				}
				b.correct(took - want)
				b.mu.Unlock()
			}
			switch {
			case k.only != nil:
				give(0, "")
			case Per(per) == PerCaller:
				give(c.Caller.key(), c.Caller.Name())
			case Per(per) == PerEvent:
				give(a.hashOf(PerEvent, c.Event), c.Event)
			case k.part != nil:
				for _, key := range a.partKeys(k, c, nil) {
					piece, _ := k.part.of(c.Channels[key.index])
					give(key.hash, piece)
				}
			default:
				seen := map[string]bool{}
				for _, name := range c.Channels {
					if !seen[name] {
						seen[name] = true
						give(a.hashOf(PerChannel, name), name)
					}
				}
			}
		}
	}
}

// correct gives n tokens back, or takes them though the bucket may not have them. b.mu is held.
func (b *bucket) correct(n int32) {
	if b.gen == 0 || b.dead {
		return
	}
	left := b.lim.TokensAt(b.last)
	if n < 0 {
		n = -int32(min(float64(-n), left)) // what went out beyond the quota is gone
	}
	b.lim.AllowN(b.last, -int(n))
	b.sure = 0
	if b.sh != nil {
		b.spent(-n)
	}
}
