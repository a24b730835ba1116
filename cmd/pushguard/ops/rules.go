package ops

import (
	"net/http"
	"strings"

	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/quota"
)

// RuleStatus is one rule of one app with what it did on this replica since the
// process began, or since its match was changed.
type RuleStatus struct {
	Account  string           `json:"account"`
	App      string           `json:"app"`
	Name     string           `json:"name"`
	Match    MatchStatus      `json:"match"`
	Priority string           `json:"priority"`
	Deny     bool             `json:"deny,omitempty"`
	Dedupe   string           `json:"dedupe"` // empty: none
	Conflate string           `json:"conflate"`
	Vacant   string           `json:"vacant"`    // skip, or empty
	Order    string           `json:"order"`     // strict, or empty
	NoDigest bool             `json:"no_digest"` // digest: false
	Rates    []string         `json:"rates"`
	Bursts   []int            `json:"bursts"` // of each rate
	Answer   string           `json:"answer"`
	Mode     string           `json:"mode"` // enforce, observe
	Matched  int64            `json:"matched"`
	Asked1m  int64            `json:"matched_1m"`
	Held1m   int64            `json:"refused_1m"`
	Outcomes map[string]int64 `json:"outcomes"`
	Would    map[string]int64 `json:"would"` // in observe mode: what it would have done
}

// MatchStatus is whom a rule is for; an empty list means any.
type MatchStatus struct {
	Event   []string `json:"event"`
	Channel []string `json:"channel"`
	Caller  []string `json:"caller"`
}

// rules lists the rules in file order, the built-in default last, app by app.
func (s *Server) rules(r *http.Request) ([]RuleStatus, error) {
	out := []RuleStatus{}
	now := s.cfg.Now().Unix()
	for _, a := range s.cfg.Accounts() {
		if want := r.URL.Query().Get("account"); want != "" && want != a.Name {
			continue
		}
		b := s.book(a.Name)
		for _, app := range a.Apps {
			wide := app.Limiter.Policy().Mode
			for _, rule := range app.Limiter.Rules() {
				row := ruleStatus(rule, wide)
				row.Account, row.App = a.Name, app.ID
				b.mu.Lock()
				if w := b.rules[rule]; w != nil {
					sum := w.sum(now)
					row.Asked1m, row.Held1m = sum.asked, sum.held
				}
				b.mu.Unlock()
				out = append(out, row)
			}
		}
	}
	return out, nil
}

func ruleStatus(rule *limiter.CompiledRule, wide limiter.Mode) RuleStatus {
	spec, st := rule.Spec(), rule.Stats()
	row := RuleStatus{
		Name:     st.Name,
		Match:    MatchStatus{orEmpty(spec.Match.Event), orEmpty(spec.Match.Channel), orEmpty(spec.Match.Caller)},
		Priority: spec.Priority.String(),
		NoDigest: spec.NoDigest, Deny: spec.Deny,
		Rates: []string{}, Bursts: []int{}, Answer: spec.Answer.String(),
		Mode:    max(spec.Mode, wide).String(),
		Matched: st.Matched, Outcomes: map[string]int64{}, Would: map[string]int64{},
	}
	if row.Name == "" {
		row.Name = unnamed(spec.Match)
	}
	if spec.Dedupe > 0 {
		row.Dedupe = spec.Dedupe.String() + " in this " + spec.DedupeScope.String()
	}
	if spec.Strict {
		row.Order = "strict"
	}
	if spec.SkipVacant {
		row.Vacant = "skip"
	}
	if spec.Conflate > 0 {
		row.Conflate = spec.Conflate.String()
		if spec.ConflateKey != "" {
			row.Conflate += " by " + spec.ConflateKey
		}
	}
	for _, rate := range spec.Rates {
		row.Rates, row.Bursts = append(row.Rates, rate.String()), append(row.Bursts, rate.Burst)
	}
	for o := range limiter.Outcome(limiter.Outcomes) {
		if st.Outcomes[o] > 0 {
			row.Outcomes[o.String()] = st.Outcomes[o]
		}
		if st.Would[o] > 0 {
			row.Would[o.String()] = st.Would[o]
		}
	}
	return row
}

// unnamed calls a rule without a name by what it matches.
func unnamed(m limiter.Match) string {
	var words []string
	for _, list := range [][]string{m.Event, m.Channel, m.Caller} {
		words = append(words, list...)
	}
	if m.Kind != limiter.KindPublish {
		words = append(words, m.Kind.String())
	}
	if len(words) == 0 {
		return "everything"
	}
	return strings.Join(words, " ")
}

// Savings is the answer of GET /api/v1/savings: what the guard kept off the bill
// today (UTC) on this replica. Messages are an estimate: publishes that were not
// sent, at the average price of those of the same caller that were.
type Savings struct {
	Account string `json:"account"`
	Day     string `json:"day"`
	// PlanUSD is the plan's list price a month, null when it is not known; a
	// message is worth a 30th of it, divided by the plan's messages a day.
	PlanUSD       *float64     `json:"plan_usd_month"`
	PerMillionUSD *float64     `json:"usd_per_million"`
	Sent          int64        `json:"sent"` // publishes
	Messages      int64        `json:"messages"`
	Rows          []SavingsRow `json:"rows"`
	Callers       []SavingsRow `json:"callers"`
	// Unpriced are publishes of callers that had none sent, so that no price is
	// known; they are in no estimate.
	Unpriced int64 `json:"unpriced"`
}

// SavingsRow is one outcome, or one caller. Kind is "saved" for what the caller
// was told is done (a duplicate, an empty channel), "withheld" for refusals.
type SavingsRow struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"`
	Publishes int64  `json:"publishes"`
	Messages  int64  `json:"messages"`
}

// List prices of Pusher's plans in USD a month, from
// https://pusher.com/channels/pricing as collected in
// https://github.com/api-evangelist/pusher (2026-05-08).
var planUSD = map[string]float64{
	"sandbox": 0, "startup": 49, "pro": 99, "business": 299, "premium": 499, "growth": 699, "plus": 899, "growth-plus": 1199,
}

func (s *Server) savings(r *http.Request) (Savings, error) {
	a, err := s.accountNamed(r.URL.Query().Get("account"))
	if err != nil {
		return Savings{}, err
	}
	now := s.cfg.Now()
	snap := a.Ledger.Snapshot(now)
	out := Savings{Account: a.Name, Day: snap.Day.String(), Rows: []SavingsRow{}, Callers: []SavingsRow{}}
	if usd, known := planUSD[snap.Plan.Name]; known {
		million := usd / 30 / float64(snap.Plan.MessagesPerDay) * 1e6
		out.PlanUSD, out.PerMillionUSD = &usd, &million
	}
	var publishes, messages [limiter.Outcomes]int64
	b := s.book(a.Name)
	for _, app := range a.Apps {
		for _, c := range app.Limiter.Callers() {
			st, today := b.today(c, c.Stats(now), snap.Day)
			row := SavingsRow{Name: c.Name(), Kind: "saved"}
			sent := today[limiter.Sent] + st.Refused
			out.Sent += today[limiter.Sent]
			out.Messages += st.MessagesToday
			for o := limiter.Deduplicated; o < limiter.Unavailable; o++ {
				n := today[o]
				if o == limiter.Conflated {
					n = max(n-st.LateToday, 0) // the newest of a window went out after all
				}
				if sent == 0 || st.MessagesToday == 0 {
					out.Unpriced += n
					continue
				}
				worth := int64(float64(n) * float64(st.MessagesToday) / float64(sent))
				publishes[o] += n
				messages[o] += worth
				row.Publishes += n
				row.Messages += worth
			}
			if row.Publishes > 0 {
				out.Callers = append(out.Callers, row)
			}
		}
	}
	for o := limiter.Deduplicated; o < limiter.Unavailable; o++ {
		kind := "saved"
		if o.Refuses() {
			kind = "withheld"
		}
		out.Rows = append(out.Rows, SavingsRow{o.String(), kind, publishes[o], messages[o]})
	}
	return out, nil
}

// today is a caller's outcomes since 00:00 UTC, or since the process began.
func (b *book) today(c *limiter.Caller, st limiter.CallerStats, day quota.Day) (limiter.CallerStats, [limiter.Outcomes]int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := st.Outcomes
	if b.seen && b.day == day {
		for o, n := range b.midnight[c] {
			out[o] -= n
		}
	}
	return st, out
}
