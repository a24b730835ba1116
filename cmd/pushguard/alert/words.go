package alert

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/watch"
	"github.com/pushguard/pushguard/limiter"
	"github.com/pushguard/pushguard/limiter/detect"
)

// OfIncident puts a step of an incident into words: who it is, until when the
// plan lasts, what is being done and which command does more. link is the
// dashboard's address; it may be empty.
func OfIncident(c watch.Change, link string) Alert {
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
		ID: in.ID, Phase: string(c.Phase), At: c.At, Account: in.Account, Severity: Error, Link: link,
		Culprit: who, Forecast: forecast(in.Forecast),
		Details: map[string]string{"factor": fmt.Sprintf("%.3g", in.Factor), "excess_messages": strconv.FormatInt(in.Excess, 10), "action": string(in.Action)},
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
		lines = append(lines, fmt.Sprintf("It lasted %s; %s messages beyond the usual were offered, %s publishes were held back.",
			in.ResolvedAt.Sub(in.StartedAt).Round(time.Second), grouped(in.Excess), grouped(in.Refused)))
	default:
		a.Title = fmt.Sprintf("%s: %s sends %.3g times its usual rate", in.Account, who, in.Factor)
		if c.Phase == detect.Updated {
			h := fnv.New64a()
			h.Write([]byte(who + string(in.Action)))
			a.Key = fmt.Sprintf("%s/updated/%x", in.ID, h.Sum64())
		}
		lines = append(lines, fmt.Sprintf("Culprit: %s%s, since %s UTC: %s messages a second, usually %s.",
			who, share, in.StartedAt.UTC().Format("15:04:05"), number(in.Rate), number(in.Usual)))
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
		a.Command = "pushguard incidents release " + in.ID + " --reason TEXT"
		return "It is contained: the culprit alone is held to its usual rate, everybody else is served. To let it go:"
	case watch.Suggested, watch.Released:
		a.Command = "pushguard incidents contain " + in.ID + " --reason TEXT"
		return "It is NOT contained. To hold the culprit to its usual rate:"
	}
	if in.Waiting {
		a.Command = "pushguard incidents contain " + in.ID + " --reason TEXT"
		return "It may be a burst. If it lasts half a minute, costs much or endangers the plan, the culprit alone is held to its usual rate. To hold it now:"
	}
	a.Command = "pushguard brake on --account " + in.Account + " --allow critical --reason TEXT --for 1h"
	if in.Kind == detect.Everybody {
		return "Everybody sends more: nobody is to blame, and nobody is held. To let only critical publishes pass:"
	}
	return "Nothing is done about it (contain: off). To let only critical publishes pass:"
}

func forecast(f watch.Forecast) string {
	switch {
	case !f.ExhaustedAt.IsZero():
		return "at this rate the plan is used up at " + f.ExhaustedAt.UTC().Format("15:04") + " UTC"
	case f.UsedAtReset > 0:
		return "at this rate the plan lasts the day, with " + grouped(f.UsedAtReset) + " messages used at the reset"
	}
	return "not known yet"
}

// OfBreaker puts a change of the quota breaker's level into words. All changes
// of one day are one alert at PagerDuty, which the way back to closed resolves.
func OfBreaker(account string, t limiter.Transition, link string) Alert {
	at := t.At.UTC()
	a := Alert{
		ID: "breaker-" + account + "-" + at.Format("20060102"), Phase: "updated", At: at, Account: account, Link: link,
		Key:      fmt.Sprintf("breaker-%s/%s/%d", account, t.To, at.UnixMilli()),
		Title:    fmt.Sprintf("%s: quota breaker %s → %s", account, t.From, t.To),
		Text:     t.Reason + ".",
		Command:  "pushguard status",
		Severity: Warning,
	}
	switch {
	case t.To == limiter.Closed:
		a.Phase, a.Severity = "resolved", Info
	case t.From == limiter.Closed:
		a.Phase = "opened"
	}
	if t.To == limiter.Open || t.To == limiter.OnlyCritical {
		a.Severity = Critical
		a.Command = "pushguard plan set MESSAGES --account " + account + " --reason TEXT"
	}
	return a
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }

// grouped writes 1234567 as 1,234,567.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
