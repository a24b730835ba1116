package limiter

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pushguard/pushguard/quota"
)

// Match says which publishes a rule is for. Patterns are globs (`*` any run of characters, `?`
// one); a list matches if any of its patterns does; an empty list matches everything.
type Match struct {
	Event, Channel, Caller []string
	Kind                   Kind // what is asked; a rule is for one kind
}

// Scope says among whom duplicates are looked for. The zero value is ScopeReplica.
type Scope uint8

// The scopes.
const (
	ScopeReplica Scope = iota
	ScopeCluster       // among all replicas; see App.SetTwins
)

// String is the word that the config file uses.
func (s Scope) String() string {
	if s == ScopeCluster {
		return "cluster"
	}
	return "replica"
}

// Rule is one entry of the rules, in plain data. Note that the zero Priority is quota.Bulk.
type Rule struct {
	Name        string // in metrics and verdicts; need not be unique
	Match       Match
	Priority    quota.Priority
	Dedupe      time.Duration // 0: duplicates go out; else at most MaxDedupe
	DedupeScope Scope
	Conflate    time.Duration // 0: off. Inside this time only the newest of an event and its channels goes out
	ConflateKey string        // "": event and channels alone; else also what a border finds in the payload by it, as Claim.Group
	Deny        bool          // nothing of it goes out
	SkipVacant  bool          // a publish that nobody would get does not go out
	NoDigest    bool          // what is shed of it gets no refresh event
	Strict      bool          // a caller's publishes to a channel are sent one after the other
	Rates       []Rate
	Answer      Answer
	Mode        Mode // Observe: see App
}

// MaxDedupe is the longest window in which duplicates can be found.
const MaxDedupe = 24 * time.Hour

// CompiledRule is a rule ready to judge, with its counters. It is immutable but for the counters
// and safe for concurrent use. It outlives the policy that it was made for as long as a claim
// holds it.
type CompiledRule struct {
	spec    Rule
	event   []glob
	channel []glob
	caller  []glob
	rates   [4][]*keyedRate // by Per
	quotas  bool            // some of them are quotas
	digest  bool
	salt    uint64 // of its records of delivered publishes; 0 when it enforces
	tally   *ruleTally
}

// ruleTally outlives reloads that leave the rule's match as it is.
type ruleTally struct {
	matched  atomic.Int64
	outcomes [Outcomes]atomic.Int64
	would    [Outcomes]atomic.Int64
}

// Name is the rule's name; the built-in rule for what matches nothing is called "default".
func (r *CompiledRule) Name() string { return r.spec.Name }

// Priority is the class that the rule puts a publish in.
func (r *CompiledRule) Priority() quota.Priority { return r.spec.Priority }

// Spec is what the rule was made from. Its slices must not be changed.
func (r *CompiledRule) Spec() Rule { return r.spec }

// WantsDigest says whether Claim.Digest is looked at under this rule, or under an observing rule
// of the same policy. When false the digest need not be computed.
func (r *CompiledRule) WantsDigest() bool { return r.digest }

// WantsTwin says whether Claim.Twin is looked at under this rule.
func (r *CompiledRule) WantsTwin() bool {
	return r.spec.DedupeScope == ScopeCluster && r.spec.Dedupe > 0 && r.spec.Mode == Enforce
}

// ConflateKey is by what Claim.Group is found under this rule; "" leaves it zero.
func (r *CompiledRule) ConflateKey() string { return r.spec.ConflateKey }

// SkipsVacant says whether Claim.Vacant is looked at under this rule.
func (r *CompiledRule) SkipsVacant() bool { return r.spec.SkipVacant }

// IsStrict says whether a publish of a caller to a channel waits for the answer to the one before it.
func (r *CompiledRule) IsStrict() bool { return r.spec.Strict && r.spec.Mode == Enforce }

// conflates says whether the claim is one of a burst: without the key that the rule asks for it
// cannot be told from others, and goes out as any other.
func (r *CompiledRule) conflates(c *Claim) bool {
	return r.spec.Conflate > 0 && c.Event != "" && (r.spec.ConflateKey == "" || c.Group != [2]uint64{})
}

// Conflated says whether its rule conflates the claim.
func (c *Claim) Conflated() bool { return c.Rule != nil && c.Rule.conflates(c) }

// RuleStats is what a rule did since the process began, or since its match was changed.
type RuleStats struct {
	Name     string
	Mode     Mode
	Matched  int64
	Outcomes [Outcomes]int64
	Would    [Outcomes]int64 // in observe mode: what it would have done, Sent included
}

// Stats reads the counters, each by itself: they may be a publish apart.
func (r *CompiledRule) Stats() RuleStats {
	s := RuleStats{Name: r.spec.Name, Mode: r.spec.Mode, Matched: r.tally.matched.Load()}
	for o := range s.Outcomes {
		s.Outcomes[o] = r.tally.outcomes[o].Load()
		s.Would[o] = r.tally.would[o].Load()
	}
	return s
}

// defaultRule judges what matches no rule: normal, nothing limited.
func defaultRule() Rule { return Rule{Name: "default", Priority: quota.Normal} }

// matches says whether the rule is for this publish. Of a publish to several channels one that
// matches is enough: the publish is one call and has one verdict.
func (r *CompiledRule) matches(event string, channels []string, caller string) bool {
	return r.spec.Match.Kind == KindPublish && matchAny(r.event, event) && matchAny(r.caller, caller) && r.matchesChannel(channels)
}

func (r *CompiledRule) matchesChannel(channels []string) bool {
	if len(r.channel) == 0 {
		return true
	}
	for _, c := range channels {
		if matchAny(r.channel, c) {
			return true
		}
	}
	return false
}

func matchAny(globs []glob, s string) bool {
	if len(globs) == 0 {
		return true
	}
	for i := range globs {
		if globs[i].match(s) {
			return true
		}
	}
	return false
}

// identity is what makes a rule the same rule over a reload: whom it is for, not where it stands
// or what it is called.
func (m Match) identity() string {
	var b strings.Builder
	for _, list := range [][]string{m.Event, m.Channel, m.Caller} {
		for _, p := range list {
			fmt.Fprintf(&b, "%q,", p)
		}
		b.WriteByte(';')
	}
	if m.Kind != KindPublish {
		b.WriteString(m.Kind.String())
	}
	return b.String()
}

// check collects every mistake of a rule, and gives its rates their defaults.
func (r Rule) check() (Rule, error) {
	var errs []error
	for _, list := range [][]string{r.Match.Event, r.Match.Channel, r.Match.Caller} {
		for _, p := range list {
			if p == "" {
				errs = append(errs, errors.New("an empty pattern matches nothing"))
			}
		}
	}
	if k := r.Match.Kind; k >= Kinds {
		errs = append(errs, fmt.Errorf("kind %d is not one", k))
	} else if k != KindPublish && (len(r.Match.Event) > 0 || len(r.Match.Channel) > 0 || r.Dedupe > 0 || r.Conflate > 0 || r.SkipVacant) {
		errs = append(errs, fmt.Errorf("kind %s has no event or channel, and nothing of it is deduplicated, conflated or left out", k))
	}
	if r.Priority >= quota.Priorities {
		errs = append(errs, fmt.Errorf("priority %d is not one", r.Priority))
	}
	if r.Dedupe < 0 || r.Dedupe > MaxDedupe {
		errs = append(errs, fmt.Errorf("dedupe of %v: must be between 0 and %v", r.Dedupe, MaxDedupe))
	}
	if r.Dedupe%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("dedupe of %v: must be whole milliseconds", r.Dedupe))
	}
	if r.Conflate < 0 {
		errs = append(errs, fmt.Errorf("conflate of %v is below 0", r.Conflate))
	}
	if r.ConflateKey != "" && r.Conflate == 0 {
		errs = append(errs, errors.New("a key to conflate by, but nothing is conflated"))
	}
	rates := make([]Rate, len(r.Rates))
	for i, rate := range r.Rates {
		n, err := rate.normal()
		if err != nil {
			errs = append(errs, err)
		}
		rates[i] = n
	}
	r.Rates = rates
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("rule %q: %w", r.Name, err)
	}
	return r, nil
}

func compileGlobs(patterns []string) []glob {
	globs := make([]glob, len(patterns))
	for i, p := range patterns {
		globs[i] = compileGlob(p)
		if globs[i].kind == globAll {
			return nil
		}
	}
	return globs
}
