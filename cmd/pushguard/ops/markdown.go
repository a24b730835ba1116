package ops

import (
	"fmt"
	"strings"
	"time"

	"github.com/pushguard/pushguard/cmd/pushguard/words"
)

// Markdown is a draft of a post-mortem: what is known is filled in, what only
// people know is asked for.
func (in Incident) Markdown(now time.Time) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	end, lasted := "still open", now.Sub(in.StartedAt)
	if in.ResolvedAt != nil {
		end, lasted = stamp(*in.ResolvedAt), in.ResolvedAt.Sub(in.StartedAt)
	}
	line("# Incident %s: %s", cell(in.ID), cell(in.Headline()))
	line("")
	line("| | |")
	line("|---|---|")
	line("| Account | %s |", cell(in.Account))
	line("| Began | %s |", stamp(in.StartedAt))
	line("| Noticed by pushguard | %s, %s after it began |", stamp(in.DetectedAt), words.Span(in.DetectedAt.Sub(in.StartedAt).Round(time.Second)))
	line("| Ended | %s |", end)
	line("| Lasted | %s |", words.Span(lasted.Round(time.Second)))
	line("| Rate | %s |", in.rates())
	line("| Messages beyond the usual | %s |", words.Count(in.Excess))
	line("| What was done | %s |", cell(in.Action))
	if in.AckedBy != "" {
		line("| Acknowledged by | %s |", cell(in.AckedBy))
	}
	line("")
	line("## Who made the excess")
	line("")
	line("| caller | event | channel | payload | share of the excess |")
	line("|---|---|---|---|---|")
	for _, c := range in.Culprits {
		line("| %s | %s | %s | %s | %.0f %% |", cell(orAny(c.Caller)), cell(orAny(c.Event)), cell(orAny(c.Channel)), cell(orAny(c.Payload)), c.Share*100)
	}
	line("")
	line("## Timeline (UTC)")
	line("")
	for _, e := range in.Timeline {
		line("- %s  %s", stamp(e.At), cell(e.Text))
	}
	if len(in.Samples) > 0 {
		line("")
		line("## Samples")
		line("")
		line("| at | caller | event | channel | payload | bytes |")
		line("|---|---|---|---|---|---|")
		for _, s := range in.Samples {
			line("| %s | %s | %s | %s | %s | %d |", stamp(s.At), cell(s.Caller), cell(s.Event), cell(s.Channel), cell(s.Digest), s.Bytes)
		}
	}
	for _, ask := range []string{"What users saw", "Why it began", "What went well", "What did not", "What will be changed, by whom, until when"} {
		line("")
		line("## %s", ask)
		line("")
		line("_To be written._")
	}
	return b.String()
}

// Headline says in one line who does what.
func (in Incident) Headline() string {
	return fmt.Sprintf("%s at up to %s times its usual rate", in.who(), words.Times(in.Factor))
}

// who names the first culprit.
func (in Incident) who() string {
	if len(in.Culprits) == 0 {
		return "everybody"
	}
	c := in.Culprits[0]
	var names []string
	for _, w := range []string{c.Caller, c.Event, c.Channel} {
		if w != "" && w != "*" {
			names = append(names, words.Printable(w))
		}
	}
	if len(names) == 0 {
		names = []string{"everybody"}
	}
	return strings.Join(names, " · ")
}

// rates are messages a second, as the detector compares them; publishes a
// second stand with callers.
func (in Incident) rates() string {
	at := "at its highest " + words.Times(in.Factor) + " times its usual rate"
	if in.PerSecond <= 0 {
		return at
	}
	now := "now"
	if in.State != IncidentOpen {
		now = "at the end"
	}
	return fmt.Sprintf("%s messages/s %s, usually %s; %s", words.Rate(in.PerSecond), now, words.Rate(in.BaselinePer), at)
}

func orAny(s string) string {
	if s == "" || s == "*" {
		return "(any)"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// cell and flat keep what callers chose (event and channel names) from becoming
// markup of the draft.
func cell(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "`", "'", "[", `\[`, "*", `\*`, "_", `\_`).Replace(flat(s))
}

func flat(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
