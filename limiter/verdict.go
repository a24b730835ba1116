package limiter

import (
	"time"

	"github.com/pushguard/pushguard/quota"
)

// Outcome is what happens to a publish. The zero value is Sent. The constants stand in order of
// strictness: see Stricter.
type Outcome uint8

// The outcomes, mildest first.
const (
	Sent         Outcome = iota // it goes to Pusher
	Deduplicated                // the same publish was delivered, or is under way, inside the rule's window
	Conflated                   // a newer value goes out at the window's end
	Digested                    // shed, but its channel gets a refresh event
	Vacant                      // nobody is subscribed
	Throttled                   // a token bucket is empty
	Contained                   // the culprit of an open incident, held to its baseline
	OverBudget                  // its part of the plan is spent, or the breaker sheds its priority
	Braked                      // a person pulled the brake
	Unavailable                 // Pusher or the store cannot be used
)

// Outcomes is how many there are; arrays indexed by Outcome have this length.
const Outcomes = 10

var outcomeNames = [Outcomes]string{
	"sent", "deduplicated", "conflated", "digested", "vacant",
	"throttled", "contained", "over_budget", "braked", "unavailable",
}

// String is the word that programs outside rely on, as in the header Pushguard-Outcome.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "unknown"
}

// Refuses says whether the caller is told that its publish did not go through. The others are
// answered as accepted.
func (o Outcome) Refuses() bool { return o >= Throttled }

// Stricter is the stricter of two outcomes. It is a total order: commutative, associative and
// idempotent, so the outcome of several judgements does not depend on which was made first.
func Stricter(a, b Outcome) Outcome { return max(a, b) }

// Reason says in one machine word why a verdict is not plainly "sent". Text for people is made
// at the edge. The zero value is NoReason.
type Reason uint8

// The reasons.
const (
	NoReason       Reason = iota
	Duplicate             // deduplicated: a twin was delivered or is under way
	CallerRate            // throttled: a bucket of this caller
	EventRate             // throttled: a bucket of this event
	ChannelRate           // throttled: a bucket of one of its channels; see Verdict.Channel
	AppRate               // throttled: the bucket of the whole app
	RuleRate              // throttled: the bucket that all publishes of the rule share
	Culprit               // contained
	PlanSpent             // over_budget: the plan is used up
	FloorReserved         // over_budget: what is left is kept for higher priorities
	ShareSpent            // over_budget: the caller's share is used up
	Exhausted             // over_budget: Pusher itself said that the account is over its quota
	SheddingBulk          // over_budget: the breaker refuses bulk
	SheddingNormal        // over_budget: the breaker refuses bulk and normal
	CriticalOnly          // over_budget: the breaker lets only critical pass
	BreakerOpen           // over_budget: the breaker lets nothing pass
	BrakePulled           // braked
	StoreLost             // unavailable: the store is out of reach and the policy allows no more
	LeaseWait             // unavailable: the plan has room, but its tokens did not come to this replica in time
	NewerValue            // conflated
	Refreshed             // digested
	NobodyThere           // vacant

	// Admit never gives these; the border does, when it learns what became of a publish.
	UpstreamFailing     // unavailable: Pusher fails again and again
	UpstreamOpen        // unavailable: the upstream breaker is open
	UpstreamRefused     // Pusher's own 4xx
	UpstreamTimeout     // unavailable: no answer in time, the fate is unknown
	UpstreamUnreachable // unavailable: no connection
	Draining            // unavailable: this replica is shutting down
	Overloaded          // unavailable: this replica has more than it can carry, and this was not important enough

	RuleDenies // braked: its rule says deny
	QuotaSpent // throttled: a quota of the day is used up; see Verdict.Channel
)

// Reasons is how many there are; arrays indexed by Reason have this length.
const Reasons = 31

var reasonNames = [Reasons]string{
	"", "duplicate", "caller_rate", "event_rate", "channel_rate", "app_rate", "rule_rate", "culprit",
	"plan_spent", "floor_reserved", "share_spent", "exhausted", "shedding_bulk", "shedding_normal",
	"critical_only", "breaker_open", "brake_pulled", "store_lost", "lease_wait", "newer_value", "refreshed", "nobody_there",
	"upstream_failing", "upstream_open", "upstream_refused", "upstream_timeout", "upstream_unreachable", "draining", "overloaded",
	"rule_denies", "quota_spent",
}

// String is a stable word, as in the header Pushguard-Reason; empty for NoReason.
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Mode says whether decisions are carried out. The zero value is Enforce.
type Mode uint8

// The modes.
const (
	Enforce Mode = iota
	Observe      // decide and count, change nothing
)

// String is the word that the config file uses.
func (m Mode) String() string {
	if m == Observe {
		return "observe"
	}
	return "enforce"
}

// Answer says how a refusal is answered, for apps that cannot take the default.
// The zero value is AnswerDefault.
type Answer uint8

// The answers.
const (
	AnswerDefault Answer = iota // by outcome
	Answer403
	Answer429
	AnswerOK // accepted in appearance: dropped and counted
)

// String is the word that the config file uses.
func (a Answer) String() string {
	switch a {
	case Answer403:
		return "403"
	case Answer429:
		return "429"
	case AnswerOK:
		return "ok"
	}
	return "default"
}

// Fate is what became of a publish that Admit let pass. The zero value is Delivered.
type Fate uint8

// The fates.
const (
	Delivered Fate = iota // Pusher accepted it
	NotSent               // nothing went out: the hold is given back
	Refused               // Pusher answered 4xx
	Unknown               // it may have arrived: the whole hold stays spent
)

// String names the fate in logs.
func (f Fate) String() string {
	switch f {
	case Delivered:
		return "delivered"
	case NotSent:
		return "not_sent"
	case Refused:
		return "refused"
	}
	return "unknown"
}

// Claim is one event that somebody wants to publish. Its strings and slices are borrowed until
// Done; nothing of them is kept. A Claim is used by one goroutine at a time and may be reused
// after Done.
type Claim struct {
	Caller   *Caller       // from App.Caller; nil is a caller of no name without counters
	Rule     *CompiledRule // from App.Match; nil: Admit looks it up
	Event    string
	Channels []string
	Digest   [2]uint64 // identity of (event, data, socket_id, info); zero: never a duplicate
	Twin     [2]uint64 // Digest and channels, the same on every replica; zero: this replica alone looks for duplicates
	Cost     int64     // estimate, in messages as Pusher bills
	Size     int       // bytes of data
	Group    [2]uint64 // a further part of what a publish is conflated by; zero: event and channels alone
	Vacant   bool      // nobody is subscribed to any of its channels
	Kind     Kind      // what is asked; zero: a publish
	Refresh  bool      // a refresh event, for what was shed: only brake and budget are asked, of DigestShare
	Late     bool      // a held publish whose window is over: it was answered, so only brake, breaker and budget are asked
	HeldAt   time.Time // of a Late one: when it was judged before

	again repeat // what it has behind it, if its last verdict turned out to be void
}

// repeat is what a claim is not asked for twice when it is judged again, because the twin that it waited for was not
// delivered. It is one publish and one attempt, however often it is judged.
type repeat struct {
	judged bool    // containment let it pass, and an observing rule has counted it
	paid   [2]bool // its tokens are taken: under the observing rule, under its own and the app's
	over   bool    // its caller was over a rate that observes
}

// Verdict is a decision. It is a value; hand it to Done unchanged in its unexported part.
type Verdict struct {
	Outcome    Outcome       // what to do
	Would      Outcome       // what enforcing everything would have done; differs from Outcome in observe mode only
	Reason     Reason        // why Outcome, or why Would if they differ
	Answer     Answer        // how the rule wants a refusal answered
	Probe      bool          // sent to learn whether Pusher takes publishes again; see Breaker
	Channel    int           // index of the channel at fault for ChannelRate, else -1
	RetryAfter time.Duration // earliest time that a repeat makes sense; 0: not known
	Rule       *CompiledRule // the rule it was judged under, never nil
	Flight     *Flight       // not nil: a twin is still under way; see Flight

	Aim *quota.Aim // of Braked: the aimed brake that refused; nil: the account's

	Due  time.Time // of Conflated: when the newest value goes out
	Shed Reason    // of Digested: why it was shed

	Hold quota.Hold // what Done settles

	admitted bool // it goes out
	began    bool // it began the window burst
	burst    dkey
	ticket   ticket // its place in the dedupe window
	shadow   ticket // its place there under the observing rule
	twin     claimed
}

// First reports whether the publish is the first of a burst, as far as this replica knows. Another
// replica may hold an older value, which must not arrive after it.
func (v *Verdict) First() bool { return v.began && v.admitted }
