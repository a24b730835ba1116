package ops

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

// Verdict answers, from the numbers beside it and from nothing else, the five
// questions of a bad night. Dashboard, terminal and post-mortem show these very
// sentences.
type Verdict struct {
	Severity string `json:"severity"` // good, note, warn, bad
	Short    string `json:"short"`    // a few words, for a tab or a badge
	Title    string `json:"title"`    // are we all right?
	Text     string `json:"text"`     // why it says so
	Lasts    string `json:"lasts"`    // when does the plan run out?
	Who      string `json:"who"`      // who is doing it?
	Doing    string `json:"doing"`    // what is pushguard doing?
	Try      string `json:"try"`      // what can I do? a command, or empty
}

// MinuteStatus is what became of the publishes of the last minute on this
// replica. They add up to Asked.
type MinuteStatus struct {
	Asked       int64 `json:"asked"`
	Delivered   int64 `json:"delivered"`
	Duplicates  int64 `json:"duplicates"`  // accepted; the same was delivered already
	Undelivered int64 `json:"undelivered"` // accepted and not delivered: digested, vacant, conflated
	Limited     int64 `json:"limited"`     // refused by a rate or by containment
	Shed        int64 `json:"shed"`        // refused to save the plan, or by the brake
	Failed      int64 `json:"failed"`      // Pusher, or this replica, could not
}

// Refused is what callers got an error for.
func (m MinuteStatus) Refused() int64 { return m.Limited + m.Shed + m.Failed }

// minuteStatus sums the last sixty seconds.
func (b *book) minuteStatus(now time.Time) MinuteStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var sum [groups]int64
	for _, p := range b.fine.since(now.Add(-time.Minute).Unix()) {
		for g, n := range p.groups {
			sum[g] += n
		}
	}
	m := MinuteStatus{Delivered: sum[groupPassed], Duplicates: sum[groupFolded], Undelivered: sum[groupUndelivered],
		Limited: sum[groupLimited], Shed: sum[groupShed], Failed: sum[groupFailed]}
	m.Asked = m.Delivered + m.Duplicates + m.Undelivered + m.Refused()
	return m
}

// verdict judges an account. open are its open incidents.
func verdict(now time.Time, st *Status, a *AccountStatus, open []Incident, ready Readiness) Verdict {
	v := Verdict{Lasts: lasts(now, a), Who: whoIs(a, open), Doing: doing(a, open)}
	say := func(severity, short, title, text, try string) Verdict {
		v.Severity, v.Short, v.Title, v.Text, v.Try = severity, short, title, text, try
		return v
	}
	plan := max(a.Plan.MessagesPerDay, 1)
	used := words.Part(float64(a.Used)/float64(plan)) + " of today's plan is used"
	also := ""
	if len(open) > 0 {
		also = " Open incident: " + open[0].who() + "."
	}
	l := a.Ledger
	nothing := !l.StoreUp && (l.OnStoreLoss == "closed" || l.LeaseSpent)
	var failing, silent []string
	for _, app := range a.Apps {
		if app.Upstream.State != "closed" {
			failing = append(failing, app.ID)
		}
		if app.Upstream.Silent {
			silent = append(silent, app.ID)
		}
	}
	switch {
	case a.Brake != nil:
		title := "The brake is on: nothing passes"
		if a.Brake.Priority == "critical" {
			title = "The brake is on: only critical publishes pass"
		}
		until := "until it is lifted"
		if a.Brake.Until != nil {
			until = "until " + words.Clock(*a.Brake.Until, now)
		}
		return say("bad", "Brake on", title, fmt.Sprintf("“%s”, by %s, %s.%s", words.Printable(a.Brake.Reason), orUnknown(words.Printable(a.Brake.By)), until, also), words.BrakeOff(a.Name))
	case a.Exhausted != nil:
		return say("bad", "Over quota", "Pusher refuses: it says that the account is over its quota",
			strings.TrimRight(words.Printable(a.Exhausted.Reason), ". ")+". pushguard tries one publish now and then."+also, words.PlanSet(a.Name))
	case a.Breaker.State == "open" || a.Remaining <= 0:
		return say("bad", "Plan used up", "Stopped: the plan is used up", sentence(a.Breaker.Reason)+" The plan is whole again at 00:00 UTC."+also, words.PlanSet(a.Name))
	case nothing:
		why := "the messages that this replica may send without it are spent"
		if l.OnStoreLoss == "closed" {
			why = "on_store_loss is closed"
		}
		return say("bad", "Store lost", storeName(st)+" does not answer: publishes are refused",
			fmt.Sprintf("%s, since %s; %s. When the store is back everything goes on by itself.%s", words.Printable(l.StoreError), words.Clock(l.StoreSince, now), why, also), words.CheckAround())
	case len(failing) > 0:
		return say("bad", "Pusher failing", "Pusher fails for app "+strings.Join(failing, ", "),
			fmt.Sprintf("%s of recent calls failed; publishes are refused with 503 until a trial succeeds.%s", words.Part(rateOf(a, failing[0])), also), words.CheckAround())
	case len(silent) > 0:
		return say("bad", "Pusher silent", "Pusher answers nothing for app "+strings.Join(silent, ", "),
			"One publish is tried each 100 ms, critical ones first. Those that wait too long are refused, unsent and at no cost. The first answer ends it."+also, words.CheckAround())
	case !ready.Ready && l.StoreUp:
		var names, details []string
		for _, c := range ready.Checks {
			if !c.OK {
				names, details = append(names, strings.ReplaceAll(c.Name, "_", " ")), append(details, c.Detail)
			}
		}
		return say("bad", "Not ready", "This replica is not ready: "+strings.Join(names, ", "), sentence(strings.Join(details, "; "))+also, words.CheckAround())
	case len(open) > 0:
		in := open[0]
		try := words.Contain(in.ID)
		if in.Action == ActionContained {
			try = words.Release(in.ID)
		}
		return say("warn", "Incident", "Runaway: "+in.who(), sentence(in.rates()+", since "+words.Clock(in.StartedAt, now))+" "+v.Doing+" "+used+".", try)
	case !l.StoreUp:
		text := fmt.Sprintf("%s, since %s. This replica goes on with %s messages that it may send without it (on_store_loss: %s).", words.Printable(l.StoreError), words.Clock(l.StoreSince, now), words.Count(l.Lease), l.OnStoreLoss)
		if !ready.Ready {
			text += " It is not ready."
		}
		return say("warn", "Store lost", storeName(st)+" does not answer: publishes still pass", text, words.CheckAround())
	case l.Healing:
		return say("warn", "Store heals", "The store lost data and is being restored", "Replicas tell it what they know. Nobody's count is forgotten.", words.Status())
	case a.Breaker.State != "closed":
		title := "Saving the plan: " + words.Quota(a.Breaker.State)
		if a.Breaker.State == "half_open" {
			title = "Trying again whether the plan lasts: everything passes"
		}
		return say("warn", "Saving", title, sentence(a.Breaker.Reason)+" "+v.Doing, words.Top())
	case a.Forecast.ExhaustedAt != nil:
		return say("warn", "Plan short", sentenceless(v.Lasts), used+". "+v.Doing+" "+before(a), words.BrakeOn(a.Name))
	case st.ReloadRefused:
		return say("warn", "Old config", "The config was not reloaded", "The last one given has mistakes; the one before is in force.", words.CheckConfig())
	}
	m := a.Minute
	lost := m.Undelivered + m.Refused()
	if lost >= 60 && lost*10 > m.Asked {
		return say("note", "Holding back", "All right: the plan lasts, and publishes are held back", v.Doing+" "+used+".", words.Top())
	}
	return say("good", "All right", "All right", fmt.Sprintf("%s. %s %s", used, v.Lasts, v.Doing), "")
}

func storeName(st *Status) string {
	if strings.HasPrefix(st.Store.Kind, "redis") {
		return "Redis"
	}
	return "The store"
}

func rateOf(a *AccountStatus, app string) float64 {
	for _, x := range a.Apps {
		if x.ID == app {
			return x.Upstream.ErrorRate
		}
	}
	return 0
}

// lasts says when the plan is used up. The forecast is the one of the status.
func lasts(now time.Time, a *AccountStatus) string {
	plan := float64(max(a.Plan.MessagesPerDay, 1))
	switch {
	case a.Remaining <= 0:
		return "The plan is used up until 00:00 UTC."
	case a.Forecast.ExhaustedAt != nil:
		at := *a.Forecast.ExhaustedAt
		return fmt.Sprintf("At this rate the plan is used up at %s, in %s.", words.Clock(at, now), words.Span(at.Sub(now).Round(time.Second)))
	}
	return fmt.Sprintf("At this rate the plan lasts: %s used at the reset, in %s.", words.Part(float64(a.Forecast.UsedAtReset)/plan), words.Span(a.ResetsAt.Sub(now).Round(time.Minute)))
}

// whoIs names the culprit, or else who is loudest.
func whoIs(a *AccountStatus, open []Incident) string {
	if len(open) > 0 {
		return open[0].who() + ": " + open[0].rates() + "."
	}
	c := loudest(a.Callers)
	if c == nil {
		return "Nobody has published in the last ten seconds."
	}
	var all float64
	for i := range a.Callers {
		all += a.Callers[i].Rate10s
	}
	usual := "its usual rate is not known yet"
	switch {
	case c.Usual == nil:
	case *c.Usual < 0.1:
		usual = "silent as a rule"
	default:
		usual = "usually " + words.Rate(*c.Usual)
	}
	return fmt.Sprintf("Loudest is %s: %s publishes/s, %s; %s of all.", c.Name, words.Rate(c.Rate10s), usual, words.Part(c.Rate10s/max(all, 1e-9)))
}

// loud is three times its usual rate and more, and not just a publish now and then.
func loud(c *CallerStatus) bool {
	return c.Usual != nil && c.Rate10s >= 1 && c.Rate10s >= 3*max(*c.Usual, 0.1)
}

// loudest is the caller that is most above its usual rate, or else the busiest.
func loudest(list []CallerStatus) *CallerStatus {
	var best, worst *CallerStatus
	for i := range list {
		c := &list[i]
		if c.Rate10s > 0 && (best == nil || c.Rate10s > best.Rate10s) {
			best = c
		}
		if loud(c) && (worst == nil || c.Rate10s > worst.Rate10s) {
			worst = c
		}
	}
	if worst != nil {
		return worst
	}
	return best
}

// doing says what became of the last minute's publishes, and whose they were.
func doing(a *AccountStatus, open []Incident) string {
	var parts []string
	held := map[string]bool{} // callers that containment holds
	everyone := false
	for _, in := range open {
		if in.Action != ActionContained {
			continue
		}
		parts = append(parts, "pushguard holds "+in.who()+" to its allowance.")
		for _, c := range in.Culprits {
			held[c.Caller] = true
			everyone = everyone || c.Caller == "" || c.Caller == "*"
		}
	}
	m := a.Minute
	switch refused := m.Refused(); {
	case m.Asked == 0:
		parts = append(parts, "Nothing was published in the last minute.")
	case refused == 0 && m.Undelivered == 0:
		text := fmt.Sprintf("All %s of the last minute passed", words.Plural(m.Asked, "publish"))
		if m.Duplicates > 0 {
			text += fmt.Sprintf(", %s of them as duplicates that were not sent again", words.Count(m.Duplicates))
		}
		parts = append(parts, text+".")
	case refused == 0:
		parts = append(parts, fmt.Sprintf("Nothing was refused in the last minute, but %s of %s were accepted and not delivered.", words.Count(m.Undelivered), words.Plural(m.Asked, "publish")))
	default:
		text := fmt.Sprintf("%s of %s were refused in the last minute", words.Count(refused), words.Plural(m.Asked, "publish"))
		if m.Undelivered > 0 {
			text += fmt.Sprintf(", %s accepted and not delivered", words.Count(m.Undelivered))
		}
		if len(held) > 0 && !everyone {
			if others, names := refusedElsewhere(a, held); others == 0 {
				text += "; no other caller was refused"
			} else {
				text += fmt.Sprintf("; of these %s by other callers (%s)", words.Count(others), names)
			}
		}
		parts = append(parts, text+".")
	}
	if n := len(a.Aimed); n > 0 {
		more := ""
		if n > 1 {
			more = fmt.Sprintf(" (and %d more)", n-1)
		}
		parts = append(parts, "A brake is on: "+words.Printable(strings.TrimRight(a.Aimed[0].What, ". "))+more+".")
	}
	if a.Breaker.State != "closed" {
		parts = append(parts, "Quota: "+words.Quota(a.Breaker.State)+".")
	}
	return strings.Join(parts, " ")
}

// refusedElsewhere is what was refused of callers that containment does not hold.
func refusedElsewhere(a *AccountStatus, held map[string]bool) (n int64, names string) {
	var list []*CallerStatus
	for i := range a.Callers {
		if c := &a.Callers[i]; !held[c.Name] && c.Held1m > 0 {
			n += c.Held1m
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(x, y *CallerStatus) int { return int(y.Held1m - x.Held1m) })
	var some []string
	for _, c := range list[:min(len(list), 2)] {
		some = append(some, c.Name)
	}
	if more := len(list) - len(some); more > 0 {
		some = append(some, fmt.Sprintf("%d more", more))
	}
	return n, strings.Join(some, ", ")
}

// before says what happens before the plan is gone.
func before(a *AccountStatus) string {
	if a.Breaker.State != "closed" {
		return ""
	}
	return fmt.Sprintf("Bulk will be refused from %s used on, normal from %s.", words.Part(a.Thresholds.ShedBulk), words.Part(a.Thresholds.ShedNormal))
}

// sentenceless is a sentence without its full stop, for a title.
func sentenceless(s string) string { return strings.TrimSuffix(s, ".") }

func openOf(all []Incident, account string) (open []Incident) {
	for _, in := range all {
		if in.Account == account && in.State == IncidentOpen {
			open = append(open, in)
		}
	}
	return open
}
