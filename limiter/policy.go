package limiter

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/quota"
	"github.com/pushguard/pushguard/quota/rates"
)

// CallerPolicy is what one caller may do.
type CallerPolicy struct {
	Name  string
	Rate  *Rate   // nil: no bucket of its own; Per is ignored
	Share float64 // carried; the ledger holds and judges it
	Mode  Mode    // Observe: its rate and its share are decided and counted, not carried out
}

// Policy is what an app is judged by, in plain data.
type Policy struct {
	App         string
	Realm       string // keeps the buckets of apps apart that have the same name, as a load test's from the live one's
	Mode        Mode   // Observe: nothing at all is carried out
	Rules       []Rule // the first that matches holds
	Callers     []CallerPolicy
	AppRate     *Rate         // one bucket for the app; Per is ignored, as in the next two
	EventRate   *Rate         // a bucket for each event name
	ChannelRate *Rate         // a bucket for each channel
	SentWithin  time.Duration // how long a publish can be under way at most; another replica waits that long for its fate. 0: 10 s
	Digest      bool          // what is shed gets a refresh event: see Digested
	MaxKeys     int           // bound of buckets by key, and of publishes remembered; 0: DefaultMaxKeys
}

// DefaultMaxKeys bounds an app to about 35 MB of buckets and 12 MB of remembered publishes, used
// only as they come.
const DefaultMaxKeys = 1 << 18

// maxMaxKeys keeps a slip of the pen from asking for all memory.
const maxMaxKeys = 1 << 26

// policy is a Policy compiled. It is immutable.
type policy struct {
	spec      Policy
	rules     []*CompiledRule
	fallback  *CompiledRule
	kinds     [Kinds]*CompiledRule // what judges a request of a kind that matches no rule
	observing bool                 // some rule observes
	callers   []callerPolicy
	app       *keyedRate
	event     *keyedRate
	channel   *keyedRate
	rates     map[string]*keyedRate // all of them, by keyedRate.wide
	tallies   map[string]*ruleTally
}

type callerPolicy struct {
	rate  *keyedRate // nil: none
	share *quota.Share
	mode  Mode
}

// caller is the policy of c; unnamed callers have the zero one.
func (p *policy) caller(c *Caller) *callerPolicy {
	if c == nil || c.id >= len(p.callers) {
		return &noCallerPolicy
	}
	return &p.callers[c.id]
}

var noCallerPolicy callerPolicy

// compile checks the whole of p and joins every mistake. What is the same as in old keeps its
// buckets and counters. It changes nothing that is in use.
func (a *App) compile(spec Policy, old *policy) (*policy, error) {
	c := compiler{app: a, old: old, seen: map[string]int{}}
	p := &policy{spec: spec, rates: map[string]*keyedRate{}, tallies: map[string]*ruleTally{}}
	c.p = p
	switch {
	case spec.MaxKeys < 0 || spec.MaxKeys > maxMaxKeys:
		c.fail(fmt.Errorf("max keys of %d: must be between 1 and %d, or 0 for %d", spec.MaxKeys, maxMaxKeys, DefaultMaxKeys))
	case old != nil && a.maxKeys != maxKeys(spec):
		c.fail(errors.New("max keys cannot be changed while running"))
	}
	p.app = c.rate("app", spec.App, spec.AppRate, PerApp, AppRate)
	p.event = c.rate("event", "", spec.EventRate, PerEvent, EventRate)
	p.channel = c.rate("channel", "", spec.ChannelRate, PerChannel, ChannelRate)
	callers := c.callers(spec.Callers)
	digest := false
	for _, r := range spec.Rules {
		digest = digest || r.Mode == Observe && r.Dedupe > 0
	}
	for i, r := range spec.Rules {
		p.rules = append(p.rules, c.rule(strconv.Itoa(i+1), r, digest))
		p.observing = p.observing || r.Mode == Observe
	}
	p.fallback = c.rule("default", defaultRule(), digest)
	for k, r := range kindRules() {
		if p.kinds[k] = p.fallback; r.Name != p.fallback.spec.Name {
			p.kinds[k] = c.rule(r.Name, r, false)
		}
	}
	if err := errors.Join(c.errs...); err != nil {
		return nil, fmt.Errorf("app %s: %w", spec.App, err)
	}
	c.register(callers)
	return p, nil
}

func maxKeys(p Policy) int {
	if p.MaxKeys == 0 {
		return DefaultMaxKeys
	}
	return p.MaxKeys
}

type compiler struct {
	app  *App
	old  *policy
	p    *policy
	seen map[string]int
	errs []error
}

func (c *compiler) fail(err error) { c.errs = append(c.errs, err) }

// rate compiles an optional rate; identity says what it belongs to, and name is what people call its only bucket.
func (c *compiler) rate(identity, name string, r *Rate, per Per, reason Reason) *keyedRate {
	if r == nil {
		return nil
	}
	n := *r
	n.Per = per
	n, err := n.normal()
	if err != nil {
		c.fail(fmt.Errorf("%s: %w", identity, err))
		return nil
	}
	whose := identity
	if position, _, ok := strings.Cut(identity, " "); ok && position == "rule" || position == "default" {
		whose = "rule " + name
	}
	identity = fmt.Sprintf("%s %v %d %d", identity, n.PerSecond, n.Burst, n.Per)
	if n.Day {
		identity += fmt.Sprintf(" day %v %s", n.Messages, n.Part)
	}
	c.seen[identity]++
	identity += " " + strconv.Itoa(c.seen[identity])
	k := &keyedRate{
		rate:   n,
		reason: reason,
		whose:  whose,
		id:     maphash.String(c.app.seed, identity),
		wide:   rates.RateID(c.p.spec.App + " " + c.p.spec.Realm + " " + identity),
		table:  c.app.buckets,
		fill:   n.fill(),
	}
	if n.Part != "" {
		if k.part, err = compilePart(n.Part); err != nil {
			c.fail(err)
			return nil
		}
	}
	if c.old != nil {
		if same := c.old.rates[k.wide]; same != nil {
			k = same // with its buckets
		}
	}
	c.p.rates[k.wide] = k
	if per == PerApp && k.only == nil {
		k.only = newBucket(k, k.id, name)
	}
	return k
}

// callers compiles what each caller may do; register then tells whose it is.
func (c *compiler) callers(specs []CallerPolicy) []callerPolicy {
	names := map[string]bool{}
	all := make([]callerPolicy, len(specs))
	for i, s := range specs {
		switch {
		case s.Name == "":
			c.fail(errors.New("a caller has no name"))
			continue
		case names[s.Name]:
			c.fail(fmt.Errorf("caller %q is there twice", s.Name))
			continue
		}
		names[s.Name] = true
		// Only one bucket a caller, so it lies outside the table and needs no looking up.
		all[i] = callerPolicy{
			rate: c.rate("caller "+strconv.Quote(s.Name), s.Name, s.Rate, PerApp, CallerRate),
			mode: s.Mode,
		}
		if c.app.ledger != nil {
			all[i].share = c.app.ledger.Share(s.Name)
		}
	}
	return all
}

// register makes the callers known. Nothing can fail any more.
func (c *compiler) register(all []callerPolicy) {
	for i, cp := range all {
		id := c.app.callers.get(c.p.spec.Callers[i].Name, true).id
		for len(c.p.callers) <= id {
			c.p.callers = append(c.p.callers, callerPolicy{})
		}
		c.p.callers[id] = cp
	}
}

func (c *compiler) rule(position string, spec Rule, digest bool) *CompiledRule {
	if spec.Name == "" {
		spec.Name = "rule " + position
	}
	spec, err := spec.check()
	if err != nil {
		c.fail(err)
		return nil
	}
	r := &CompiledRule{
		spec:    spec,
		event:   compileGlobs(spec.Match.Event),
		channel: compileGlobs(spec.Match.Channel),
		caller:  compileGlobs(spec.Match.Caller),
		digest:  digest || spec.Dedupe > 0,
	}
	identity := "rule " + spec.Match.identity() + spec.Mode.String()
	if position == "default" {
		identity = position
	}
	c.seen[identity]++
	identity += " " + strconv.Itoa(c.seen[identity])
	reasons := [...]Reason{PerApp: RuleRate, PerCaller: CallerRate, PerEvent: EventRate, PerChannel: ChannelRate}
	for i := range spec.Rates {
		rate := &spec.Rates[i]
		r.quotas = r.quotas || rate.Day
		if k := c.rate(identity, spec.Name, rate, rate.Per, reasonOf(rate, reasons[rate.Per])); k != nil {
			r.rates[rate.Per] = append(r.rates[rate.Per], k)
		}
	}
	for _, list := range r.rates {
		// Two policies that name the same rates in another order lock their buckets alike.
		slices.SortFunc(list, func(a, b *keyedRate) int { return cmp.Compare(a.id, b.id) })
	}
	if spec.Mode == Observe {
		r.salt = maphash.String(c.app.seed, identity)
	}
	if c.old != nil {
		r.tally = c.old.tallies[identity]
	}
	if r.tally == nil {
		r.tally = &ruleTally{}
	}
	c.p.tallies[identity] = r.tally
	return r
}

func reasonOf(r *Rate, otherwise Reason) Reason {
	if r.Day {
		return QuotaSpent
	}
	return otherwise
}
