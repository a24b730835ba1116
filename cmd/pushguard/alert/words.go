package alert

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/cmd/pushguard/words"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
)

// Runbooks are the pages that say what to do, by kind of alert.
const (
	runbooks        = "https://github.com/pushguard/pushguard/blob/main/docs/runbooks/"
	RunbookIncident = runbooks + "runaway.md"
	RunbookRise     = runbooks + "everybody.md"
	RunbookQuota    = runbooks + "quota.md"
)

// page is the address of a screen of the dashboard at base; empty where no
// base is known.
func page(base, account string, path ...string) string {
	if base == "" {
		return ""
	}
	for i := range path {
		path[i] = url.PathEscape(path[i])
	}
	return strings.TrimSuffix(base, "/") + "/#/" + strings.Join(path, "/") + "?account=" + url.QueryEscape(account)
}

// OfIncident puts a step of an incident into words: what happened, to whom, what
// is done, what it costs, until when the plan lasts, one command and one link.
// base is the dashboard's address (admin.url); it may be empty.
//
// An incident is told three times at most: when it opens, when its culprit comes
// to be held, when it is over. Other steps bear the key of what was told.
func OfIncident(c watch.Change, base string) Alert {
	in := &c.Incident
	names := make([]string, len(in.Culprits))
	for i, x := range in.Culprits {
		names[i] = x.String()
	}
	who := strings.Join(names, ", ")
	if who == "" {
		who = "not known yet"
	}
	a := Alert{
		ID: in.ID, Phase: string(c.Phase), At: c.At, Account: in.Account, Severity: Error, Link: page(base, in.Account, "incidents", in.ID),
		Runbook: RunbookIncident, Culprit: who, Forecast: forecast(in.Forecast, c.At),
		Details: map[string]string{"factor": words.Times(in.Factor), "excess_messages": strconv.FormatInt(in.Excess, 10), "action": string(in.Action)},
	}
	if in.Kind == detect.Everybody {
		a.Runbook = RunbookRise
	}
	var lines []string
	share := ""
	if len(in.Culprits) > 0 {
		share = fmt.Sprintf(" (%.0f %% of the excess)", 100*in.Culprits[0].Share)
	}
	switch c.Phase {
	case detect.Resolved:
		a.Severity = Info
		a.Title = fmt.Sprintf("%s: over: %s", in.Account, who)
		lines = append(lines, fmt.Sprintf("It lasted %s. %s messages beyond the usual were offered, %s were refused by containment.",
			words.Span(in.ResolvedAt.Sub(in.StartedAt).Round(time.Second)), words.Count(in.Excess), words.Plural(in.Refused, "publish")))
	default:
		a.Title = fmt.Sprintf("%s: %s sends %s times its usual rate", in.Account, who, words.Times(in.Factor))
		if c.Phase == detect.Updated {
			a.Key = in.ID + "/" + string(detect.Opened)
			if in.Action == watch.Contained {
				a.Key = in.ID + "/" + string(watch.Contained)
			}
		}
		lines = append(lines, fmt.Sprintf("Culprit: %s%s, since %s: %s publishes/s, usually %s.", who, share, words.Clock(in.StartedAt, c.At), words.Rate(in.Rate), words.Rate(in.Usual)))
		lines = append(lines, fmt.Sprintf("Cost so far: %s messages beyond the usual.", words.Count(in.Excess)))
		lines = append(lines, "Forecast: "+a.Forecast+".")
		lines = append(lines, doing(in, &a))
	}
	a.Text = strings.Join(lines, "\n")
	return a
}

// doing says what is being done, and gives the command for what is not.
func doing(in *watch.Incident, a *Alert) string {
	switch in.Action {
	case watch.Contained:
		a.Severity = Warning
		a.Command = words.Release(in.ID)
		text := "pushguard holds the culprit to its allowance"
		if in.Refused > 0 {
			text += "; " + words.Plural(in.Refused, "publish") + " of it refused so far"
		}
		return text + ". To let it go:"
	case watch.Suggested, watch.Released:
		a.Command = words.Contain(in.ID)
		return "pushguard does NOT hold it. To hold the culprit:"
	}
	if in.Waiting {
		a.Command = words.Contain(in.ID)
		return "pushguard does not hold it yet. It will when the excess lasts or endangers the plan. To hold it now:"
	}
	a.Command = words.BrakeOn(in.Account)
	if in.Kind == detect.Everybody {
		return "Most callers send more: nobody is to blame, and nobody is held. To let only critical publishes pass:"
	}
	return "pushguard does nothing about it. To let only critical publishes pass:"
}

func forecast(f watch.Forecast, now time.Time) string {
	switch {
	case !f.ExhaustedAt.IsZero():
		return "at this rate the plan is used up at " + words.Clock(f.ExhaustedAt, now)
	case f.UsedAtReset > 0:
		return "at this rate the plan lasts the day, with " + words.Count(f.UsedAtReset) + " messages used at the reset"
	}
	return "not known yet"
}

// OfBreaker puts a change of the quota breaker's level into words. All changes
// of one day are one alert at PagerDuty, which the way back to closed resolves.
func OfBreaker(account string, t limiter.Transition, base string) Alert {
	at := t.At.UTC()
	a := Alert{
		ID: "breaker-" + account + "-" + at.Format("20060102"), Phase: "updated", At: at, Account: account,
		Link: page(base, account, "overview"), Runbook: RunbookQuota,
		Key:      fmt.Sprintf("breaker-%s/%s/%d", account, t.To, at.UnixMilli()),
		Title:    fmt.Sprintf("%s: quota: %s (before: %s)", account, words.Quota(t.To.String()), words.Quota(t.From.String())),
		Text:     strings.TrimRight(t.Reason, ". ") + ".",
		Command:  words.Top(),
		Severity: Warning,
	}
	switch {
	case t.To == limiter.Closed:
		a.Phase, a.Severity, a.Command = "resolved", Info, words.Status()
	case t.From == limiter.Closed:
		a.Phase = "opened"
	}
	if t.To == limiter.OnlyCritical || t.To == limiter.Open {
		a.Severity = Critical
		a.Command = words.PlanSet(account)
	}
	return a
}
